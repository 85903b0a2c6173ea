"""Sandboxes that stay: up, exec, shell, ls, stop, rm, rebuild, dev (ATTACKS K-5, K-7, AV-3, CFG-1)."""

from __future__ import annotations

import ast
import fcntl
import json
import os
import pty
import select
import shutil
import signal
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Iterator

import pytest

from tests.e2e.test_lifecycle import children, eventually
from tests.world import Cloister

pytestmark = pytest.mark.sandbox

FIRST = 2  # the sandbox's first process, as it is numbered there; 1 is bubblewrap
# What a process is confined by, as it can read of itself and of the first process.
CONFINEMENT = """
pid=$1
grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp)' /proc/$pid/status
for kind in cgroup ipc mnt net pid user uts; do readlink /proc/$pid/ns/$kind; done
cat /proc/$pid/uid_map /proc/$pid/gid_map /proc/$pid/cgroup /proc/$pid/limits
readlink /proc/$pid/root
"""


@pytest.fixture
def up(cloister: Cloister) -> Iterator[Cloister]:
    """A project whose sandbox runs."""
    done = cloister("up")
    assert done.code == 0, done
    yield cloister
    cloister("stop", "--time", "0")


def record(cloister: Cloister) -> dict[str, object]:
    (path,) = (cloister.state / "runs").glob("*.json")
    content: dict[str, object] = json.loads(path.read_text())
    return content


def listed(cloister: Cloister) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(cloister("ls", "--json").out)
    return found


def test_a_day(cloister: Cloister) -> None:
    """What a user does with it, in order."""
    assert cloister("ls").out.startswith("there is no sandbox")
    assert cloister("up").out == f"main ({cloister.project}): started\n"
    assert cloister("up").out == f"main ({cloister.project}): runs already, with this configuration\n"
    assert cloister("exec", "--", "sh", "-c", "echo kept > ~/note; echo mine > file; exit 3").code == 3
    assert (cloister.project / "file").read_text() == "mine\n"
    (seen,) = listed(cloister)
    assert (seen["name"], seen["running"], seen["runtime"], seen["profile"]) == (
        "main",
        True,
        "embedded",
        "agent",
    )
    assert cloister("ls", "-q").out == "main\n"
    assert cloister("stop").code == 0
    assert [one["running"] for one in listed(cloister)] == [False]
    assert cloister("exec", "true").err.startswith(
        "cloister: the sandbox 'main' does not run\n  → start it: cloister up"
    )
    assert cloister("stop").out == f"main ({cloister.project}): does not run\n"
    assert cloister("up").code == 0
    assert cloister("exec", "cat", "/".join([str(cloister.home), "note"])).out == "kept\n"
    refused = cloister("rm")
    assert (refused.code, "cloister stop" in refused.err) == (2, True)
    state = cloister.state
    assert cloister("rm", "--force", "--volumes").code == 0
    assert {path.name for path in state.iterdir()} == {"audit"}, "nothing but what a person may want is left"
    assert listed(cloister) == []
    assert (cloister.project / "file").exists()
    eventually(lambda: not cloister.processes(), "nothing of it runs")


def test_k_7_who_enters_is_confined_as_the_first_process_is(up: Cloister) -> None:
    mine = up("exec", "--", "/bin/sh", "-c", CONFINEMENT, "sh", "self")
    first = up("exec", "--", "/bin/sh", "-c", CONFINEMENT, "sh", str(FIRST))
    assert mine.code == first.code == 0, (mine, first)
    assert "CapBnd:\t0000000000000000" in mine.out
    assert "Seccomp:\t2" in mine.out
    assert mine.out == first.out


def test_k_5_nothing_is_inherited_by_who_enters(up: Cloister) -> None:
    secret = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(secret, True)
    try:
        done = subprocess.run(
            up.argv(["exec", "--", "/bin/sh", "-c", "ls /proc/self/fd; env"]),
            cwd=up.project,
            env={**up.environment(), "HOST_SECRET": "hunter2"},
            capture_output=True,
            text=True,
            timeout=30,
            pass_fds=(secret,),
            check=True,
        )
    finally:
        os.close(secret)
    assert done.stdout.split("\n")[:4] == ["0", "1", "2", "3"]  # 3: the listing's own
    assert "hunter2" not in done.stdout


# In the sandbox: look into every process that appears, for what it holds of the host.
SPY = """
import os, sys
print("ready", flush=True)
seen = set()
known = set(os.listdir("/proc"))
while not os.path.exists("stop"):
    for pid in set(os.listdir("/proc")) - known:
        if not pid.isdigit() or int(pid) == os.getpid():
            continue
        for name in ("exe", "cwd", "root"):
            try:
                seen.add((name, os.readlink(f"/proc/{pid}/{name}")))
            except OSError:
                pass
        for name in ("environ", "maps"):
            try:
                text = open(f"/proc/{pid}/{name}", "rb").read()
            except OSError:
                continue
            if b"OF_THE_HOST" in text or b"cloister/runtimes" in text or b"python" in text:
                seen.add((name, text[:200].decode(errors="replace")))
        try:
            for number in os.listdir(f"/proc/{pid}/fd"):
                seen.add(("fd", os.readlink(f"/proc/{pid}/fd/{number}").split(":")[0]))
        except OSError:
            pass
print(sorted(seen))
"""


def test_k_3_who_enters_cannot_be_looked_into_before_it_is_confined(up: Cloister) -> None:
    """The guide has host's descriptors and memory until it has become the command."""
    spy = up.start("exec", "--", "/usr/bin/python3", "-c", SPY)
    assert spy.stdout is not None
    assert spy.stdout.readline() == "ready\n", spy.communicate(timeout=10)
    for _ in range(40):
        assert up("exec", "/bin/true", environment={"OF_THE_HOST": "1"}).code == 0
    (up.project / "stop").touch()
    out, err = spy.communicate(timeout=30)
    seen = ast.literal_eval(out)
    assert seen, err  # the control: processes were looked into, and some could be
    assert {name for name, _ in seen} & {"environ", "maps"} == set(), seen
    assert {path for name, path in seen if name == "exe"} <= {
        "/usr/bin/true",
        "/usr/bin/dash",
        "/usr/bin/busybox",
    }
    assert {path for name, path in seen if name == "root"} <= {"/"}
    files = {
        kind for name, kind in seen if name == "fd" and not kind.startswith(("/usr/", "/etc/ld.so"))
    }  # the loader's
    assert files <= {"pipe", "/dev/null", "socket"}


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -TERM $$"], 143),
        (["no-such-command"], 127),
        (["/etc/passwd"], 126),
    ],
)
def test_exit_codes(up: Cloister, command: list[str], code: int) -> None:
    assert up("exec", "--", *command).code == code


def test_streams_variables_and_directories(up: Cloister) -> None:
    assert up("exec", "cat", stdin="through\n").out == "through\n"
    below = up.directory(up.project / "a b")
    assert up("exec", "pwd", cwd=below).out == f"{below}\n"
    assert up("exec", "-w", "/tmp", "pwd").out == "/tmp\n"
    shown = up(
        "exec", "-e", "A=1", "-e", "MINE", "sh", "-c", "echo $A $MINE $HOME", environment={"MINE": "2"}
    )
    assert shown.out == f"1 2 {up.home}\n"
    missing = up("exec", "-w", "/no/such/place", "pwd")
    assert (missing.code, missing.out, "'/no/such/place'" in missing.err) == (125, "", True), missing
    wrong = up("exec", "-w", "relative", "pwd")
    assert (wrong.code, "not an absolute path" in wrong.err) == (2, True)


def test_the_same_network(up: Cloister) -> None:
    """NET-1 for who enters: no other interface, no other way."""
    done = up(
        "exec", "sh", "-c", "tail -n +3 /proc/net/dev | cut -d: -f1; curl -sS -m 10 https://evil.example.test"
    )
    assert done.out.split("\n")[0].strip() == "lo"
    assert "Refused by cloister" in done.out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_reach_the_command(up: Cloister, number: signal.Signals) -> None:
    script = "trap 'echo caught; exit 9' TERM HUP INT; echo ready; while :; do read x; done"
    process = up.start("exec", "--", "/bin/bash", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, number)  # `setpriv` has become the command: the same number
    out, err = process.communicate("x\n", timeout=20)
    assert (out, process.returncode) == ("caught\n", 9), err


def test_kill_of_exec_ends_its_command_and_nothing_else(up: Cloister) -> None:
    process = up.start("exec", "--", "/bin/sh", "-c", "echo ready; exec sleep 1000")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.wait(timeout=10)
    eventually(lambda: "sleep 1000" not in up("exec", "ps", "-eo", "args").out, "the command is gone")
    assert listed(up)[0]["running"]


def test_kill_of_the_guide_ends_its_command_and_nothing_else(up: Cloister) -> None:
    """The process between `exec` and its command: nothing of the command may live on unwatched."""
    process = up.start("exec", "--", "/bin/sh", "-c", "echo ready; exec sleep 1000")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    (guide,) = children(process.pid)
    os.kill(guide, signal.SIGKILL)
    assert process.wait(timeout=10) == 137
    eventually(lambda: "sleep 1000" not in up("exec", "ps", "-eo", "args").out, "the command is gone")
    assert listed(up)[0]["running"]


def test_a_shell_on_a_terminal_has_job_control(up: Cloister) -> None:
    with Terminal(up, "exec", "-e", "PS1=next> ", "bash", "--norc") as terminal:
        terminal.type(b"", until=b"next> ")
        terminal.type(b"cat & jobs; fg\n", until=b"\ncat")
        terminal.type(b"word\n", until=b"word\nword")  # read by it: it is in the foreground
        terminal.type(b"\x03", until=b"next> ")
        terminal.type(b"stty size; exit 5\n", until=b"exit")
        assert terminal.wait() == 5, terminal.shown
    assert b"no job control" not in terminal.shown
    assert b"24 80" in terminal.shown


@pytest.mark.parametrize("command", [("exec", "--", "dash"), ("exec", "--", "dash", "-l"), ("exec", "--", "sh", "-c", "dash; exit $?")])  # fmt: skip
def test_a_shell_that_asks_for_its_process_group_gives_the_terminal_back(
    up: Cloister, command: tuple[str, ...]
) -> None:
    """dash ends with 2 and a complaint if its group has no number in its pid namespace."""
    if shutil.which("dash") is None:
        pytest.skip("dash is not installed")
    with Terminal(up, *command) as terminal:
        terminal.type(b"", until=b"$ ")
        terminal.type(b"sleep 0; echo do''ne\n", until=b"done")
        terminal.type(b"exit 3\n", until=b"exit")
        assert terminal.wait() == 3, terminal.shown
    assert b"Cannot set tty" not in terminal.shown


def test_ctrl_z_stops_the_command_and_gives_the_terminal_to_the_shell_outside(up: Cloister) -> None:
    command = " ".join(up.argv(["exec", "--", "sh", "-c", "'echo read''y; exec cat'"]))
    with Terminal(up, program=("env", "TERM=dumb", "bash", "--norc")) as terminal:
        terminal.type(b"PS1='out''side> '\n", until=b"outside> ")
        terminal.type(f"{command}\n".encode(), until=b"ready")  # from here on, the terminal echoes
        terminal.type(b"one\n", until=b"one\none")
        terminal.type(b"\x1a", until=b"outside> ")
        terminal.type(b"echo sh''ell\n", until=b"shell\noutside> ")
        terminal.type(b"fg\n", until=b"cat")
        terminal.type(b"two\n", until=b"two\ntwo")
        terminal.type(b"\x03", until=b"outside> ")
        terminal.type(b"echo code=$?\n", until=b"code=130")
        terminal.type(b"exit\n", until=b"exit")
        assert terminal.wait() == 0, terminal.shown


def test_ctrl_z_without_a_shell_outside_changes_nothing(up: Cloister) -> None:
    with Terminal(up, "exec", "--", "cat") as terminal:
        terminal.type(b"one\n", until=b"one\none")
        terminal.type(b"\x1a", until=b"^Z")
        terminal.type(b"two\n", until=b"two\ntwo")
        terminal.type(b"\x04", until=b"")
        assert terminal.wait() == 0, terminal.shown


class Terminal:
    """A command of cloister's, or another program, on a terminal of its own."""

    def __init__(self, cloister: Cloister, *arguments: str, program: tuple[str, ...] = ()) -> None:
        self.shown = b""
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.chdir(cloister.project)
            argv = list(program) or cloister.argv(arguments)
            os.execvpe(argv[0], argv, cloister.environment())
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._terminal)

    def type(self, keys: bytes, *, until: bytes) -> None:
        """Type, and wait until the screen shows something new with `until` in it."""
        os.write(self._terminal, keys)
        start = len(self.shown)
        end = time.monotonic() + 30
        while until not in self.shown[start:].replace(b"\r", b""):
            assert time.monotonic() < end, self.shown
            if select.select([self._terminal], [], [], 0.05)[0]:
                self.shown += os.read(self._terminal, 4096)

    def wait(self) -> int:
        """Its exit code."""
        while True:
            try:
                if not (part := os.read(self._terminal, 4096)):
                    break
            except OSError:  # EIO: the other end is closed
                break
            self.shown += part
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])


@pytest.mark.parametrize("victim", ["session", "gateway", "bubblewrap", "init", "first"])
def test_av_3_after_kill_of_anything_it_is_stopped_and_starts_again(up: Cloister, victim: str) -> None:
    content = record(up)
    others = content["others"]
    session = content["session"]
    assert isinstance(others, list)
    assert isinstance(session, list)
    init = others[2][0]
    pid = {
        "session": session[0], "gateway": others[0][0], "bubblewrap": others[1][0], "init": init,
        "first": children(init)[0],
    }[victim]  # fmt: skip
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not [one for one in listed(up) if one["running"]], "it is seen to have stopped")
    gone = up("exec", "true")
    assert (gone.code, "does not run" in gone.err) == (125, True), gone
    assert up("up").out.endswith(": started\n")
    assert up("exec", "true").code == 0


def test_cfg_1_a_changed_configuration_makes_it_anew_once_adopted(up: Cloister) -> None:
    before = record(up)["sandbox"]
    up.configure('[sandbox]\nenv = { COLOUR = "blue" }\n')
    assert up("exec", "sh", "-c", "echo $COLOUR").out == "\n"  # what runs is what was started
    assert up("up").out.endswith("its configuration or image had changed\n")
    assert up("exec", "sh", "-c", "echo $COLOUR").out == "blue\n"
    assert record(up)["sandbox"] != before
    (up.project / "cloister.toml").rmdir()  # the mount point that keeps the agent from making one
    up.write(up.project / "cloister.toml", '[network]\nallow = ["api.example.com"]\n')
    refused = up("up")
    assert (refused.code, "cloister trust" in refused.err) == (125, True), refused
    assert up("exec", "true").code == 0  # nothing was stopped for a configuration that does not count


def test_what_up_was_told_counts_for_the_next_one(up: Cloister) -> None:
    assert up("up", "-e", "COLOUR=red", "--profile", "offline").out.endswith(
        "its configuration or image had changed\n"
    )
    assert up("stop").code == 0
    assert up("up").code == 0
    assert up("exec", "sh", "-c", "echo $COLOUR").out == "red\n"
    assert listed(up)[0]["profile"] == "offline"


def test_an_up_that_fails_is_forgotten(cloister: Cloister) -> None:
    """Else its options would be those of the next `up`, which would fail as well."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = f"{taken.getsockname()[1]}:3000"
        assert cloister("up", "-p", port).code == 125
        assert listed(cloister) == []
        assert cloister("up", "-e", "KIND=first").code == 0
        assert cloister("up", "-p", port).code == 125
        assert cloister("up").code == 0
        assert cloister("exec", "--", "sh", "-c", "echo $KIND").out == "first\n"


def test_rebuild_makes_it_anew(up: Cloister) -> None:
    before = record(up)["sandbox"]
    assert up("rebuild").out.endswith(": started anew\n")
    assert record(up)["sandbox"] != before


def test_several_side_by_side(up: Cloister) -> None:
    assert up("up", "--name", "second", "--profile", "offline").code == 0
    assert [(one["name"], one["running"]) for one in listed(up)] == [("main", True), ("second", True)]
    assert up("exec", "-n", "second", "true").code == 0
    kept = up("rm", "--force", "--volumes")
    assert (kept.code, "also that of second" in kept.err) == (2, True)
    assert up("stop", "--all").code == 0
    assert [one["running"] for one in listed(up)] == [False, False]


def test_up_shows_what_bubblewrap_said(user_cloister: Cloister) -> None:
    """The error points to it, and the supervisor has no terminal of its own."""
    user_cloister.write(user_cloister.project / ".git/HEAD", "ref: refs/heads/main\n")
    hidden = user_cloister.directory(user_cloister.project / ".ssh/inner")  # .ssh is masked
    done = user_cloister("up", "-C", str(hidden))
    assert done.code == 125
    assert done.err.startswith("cloister: bwrap: Can't chdir to "), done
    assert "\ncloister: bubblewrap could not make the sandbox; its message stands above\n" in done.err


def test_stop_says_what_was_taken_away(up: Cloister) -> None:
    """The supervisor has no terminal, and the user has one."""
    assert up("exec", "--", "sh", "-c", "mkdir -p part/.vscode; echo {} > part/.vscode/tasks.json").code == 0
    done = up("stop")
    assert "cloister: quarantined 'part/.vscode': your tools would act on it; kept in '" in done.err, done
    assert up("up").code == 0
    assert up("rm", "--force").err == "", "what was said of an earlier end is not said again"


def test_stop_leaves_nothing_of_a_name_that_is_none(up: Cloister) -> None:
    assert up("stop", "--name", "nosuch").code == 125
    assert not [path.name for path in (up.state / "sandboxes").iterdir() if "nosuch" in path.name]


def test_rm_removes_the_volumes_of_one_that_is_forgotten(user_cloister: Cloister) -> None:
    for name in ("main", "second"):
        assert user_cloister("up", "-n", name, "--workspace-kind", "volume").code == 0
        assert user_cloister("rm", "-n", name, "--force").code == 0
    state = user_cloister.state
    assert user_cloister("up", "-n", "third").code == 0
    done = user_cloister("rm", "-n", "second", "--volumes")
    assert "with its workspace; its home stays, which is also that of third" in done.out, done
    assert not (state / "workspaces/second").exists()
    assert user_cloister("rm", "-n", "third", "--force").code == 0
    assert user_cloister("rm", "--volumes").out.endswith(": removed with its home\n")
    assert {path.name for path in state.iterdir()} == {"audit"}
    assert user_cloister("rm", "--volumes").code == 125


def test_rm_leaves_the_home_of_a_run_alone(up: Cloister) -> None:
    process = up.start("run", "--", "/bin/sh", "-c", "echo ready; exec cat")
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        refused = up("rm", "--force", "--volumes")
        assert (refused.code, "also that of a `cloister run`" in refused.err) == (2, True)
        assert [one["running"] for one in listed(up)] == [True, True], "nothing is half done"
    finally:
        process.communicate("", timeout=30)


@pytest.mark.parametrize("name", ["../x", "-rf", "", "Ü", "a" * 33, ".hidden", "a/b", "a b"])
def test_cfg_3_names_that_are_none(user_cloister: Cloister, name: str) -> None:
    done = user_cloister("up", f"--name={name}")
    assert (done.code, "cannot be a sandbox's name" in done.err) == (2, True)
    assert not (user_cloister.home / ".local").exists()


def test_nothing_is_left_by_a_start_that_fails(user_cloister: Cloister) -> None:
    user_cloister.configure('[network]\nalow = ["x.example.com"]\n')
    done = user_cloister("up")
    assert (done.code, 'unknown key "alow"' in done.err) == (125, True), done
    assert listed(user_cloister) == []
    assert not user_cloister.processes()


def test_stop_gives_processes_time(up: Cloister) -> None:
    script = "trap 'echo bye > end; exit' TERM; echo ready; while :; do sleep 0.1; done"
    process = up.start("exec", "--", "/bin/sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert up("stop").code == 0
    process.communicate(timeout=20)
    assert (up.project / "end").read_text() == "bye\n"


def test_variables_from_a_file(up: Cloister) -> None:
    file = up.write(up.home / "variables", "TOKEN=a=b\nc\0COLOUR=red\0")
    done = up("exec", "--env-from", str(file), "-e", "COLOUR=blue", "--", "sh", "-c", 'echo "$TOKEN" $COLOUR')
    assert (done.code, done.out) == (0, "a=b\nc blue\n")
    up.write(file, "TOKEN\0")
    wrong = up("exec", "--env-from", str(file), "true")
    assert (wrong.code, "'TOKEN' is not NAME=VALUE" in wrong.err) == (2, True), wrong
    assert "variables" in up("exec", "--env-from", str(file) + "x", "true").err
