"""Start, end, signals, exit codes, terminals, crashes (ATTACKS AV-3, NET-8, CFG-1, CFG-3)."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.world import Cloister, Identity

pytestmark = pytest.mark.sandbox


def eventually(condition: Callable[[], bool], what: str, deadline_s: float = 20.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"not within {deadline_s:g} s: {what}")
        select.select([], [], [], 0.02)


def record(cloister: Cloister) -> dict[str, list[list[int]]]:
    """The one live sandbox's record, once bubblewrap is in it."""
    runs = cloister.state / "runs"

    def complete() -> bool:
        found = list(runs.glob("*.json"))
        return len(found) == 1 and len(json.loads(found[0].read_text())["others"]) == 3

    eventually(complete, "a complete record")
    (path,) = runs.glob("*.json")
    content: dict[str, list[list[int]]] = json.loads(path.read_text())
    return content


def children(pid: int) -> list[int]:
    """Those of a process, in the order in which they came to be; none if it has gone."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def start_idle(cloister: Cloister) -> subprocess.Popen[str]:
    process = cloister.start("run", "--", "/bin/sh", "-c", "echo ready; exec cat")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate(timeout=10)
    return process


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -TERM $$"], 143),
        (["sh", "-c", "kill -KILL $$"], 137),
        (["no-such-command"], 127),
        (["/no/such/file"], 127),
        (["/etc/passwd"], 126),
        (["/usr"], 126),
    ],
)
def test_exit_codes(cloister: Cloister, command: list[str], code: int) -> None:
    assert cloister.run(*command).code == code


def test_pipes_and_arguments(cloister: Cloister) -> None:
    assert cloister.run("cat", stdin="through\n").out == "through\n"
    arguments = ["a b", "$HOME", "'", '"', "", "-x", "é", "`id`"]
    done = cloister.run("/usr/bin/python3", "-c", "import sys; print(sys.argv[1:])", *arguments)
    assert done.out.strip() == str(arguments)
    assert cloister.run("sh", "-c", "echo out; echo err >&2").err == "err\n"


def test_private_home_persists_and_workspace_is_shared(cloister: Cloister) -> None:
    assert cloister.sh("echo kept > ~/note; echo mine > file").code == 0
    assert cloister.sh("cat ~/note").out == "kept\n"
    assert (cloister.project / "file").read_text() == "mine\n"
    assert not (cloister.home / "note").exists()


def test_nothing_is_left_in_the_workspace(cloister: Cloister) -> None:
    (cloister.project / "a").mkdir()
    cloister.own(cloister.project / "a")
    before = sorted(os.listdir(cloister.project))
    assert cloister.run("true").code == 0
    assert sorted(os.listdir(cloister.project)) == before
    assert list((cloister.state / "runs").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_are_forwarded(cloister: Cloister, number: signal.Signals) -> None:
    script = "trap 'echo caught; exit 9' TERM HUP INT; echo ready; while :; do read x; done"
    process = cloister.start("run", "--", "/bin/bash", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    target = record(cloister)["session"][0]
    os.kill(int(target), number)  # type: ignore[call-overload]  # JSON: the pid
    out, err = process.communicate("x\n", timeout=20)
    assert (out, process.returncode) == ("caught\n", 9), err


def test_a_signal_while_it_starts_is_not_lost(user_cloister: Cloister) -> None:
    """`timeout` may be shorter than a start: whatever it interrupts, the command must not run on."""
    assert user_cloister.run("true").code == 0
    for delay_ms in range(1, 80, 6):
        process = user_cloister.start("run", "--", "sleep", "60")
        select.select([], [], [], delay_ms / 1000)
        process.terminate()
        _, err = process.communicate(timeout=20)
        assert process.returncode in (143, -signal.SIGTERM), err
    eventually(lambda: not user_cloister.processes(), "every process of the sandboxes is gone")


@pytest.mark.parametrize("victim", ["session", "gateway", "bubblewrap", "init", "command"])
def test_kill_of_any_process_leaves_nothing_that_the_next_command_does_not_clean(
    cloister: Cloister, victim: str
) -> None:
    """AV-3, NET-8."""
    (cloister.project / ".git").mkdir()
    cloister.own(cloister.project / ".git")
    before = sorted(os.listdir(cloister.project))
    process = start_idle(cloister)
    found = record(cloister)
    pids = {
        "session": found["session"][0],
        "gateway": found["others"][0][0],
        "bubblewrap": found["others"][1][0],
        "init": found["others"][2][0],
        "command": children(found["others"][2][0])[0],
    }
    os.kill(pids[victim], signal.SIGKILL)  # type: ignore[arg-type]  # JSON: a pid
    process.wait(timeout=20)  # before its standard input is closed, which would end it in peace
    _, err = process.communicate(timeout=20)
    assert process.returncode not in (0, None)
    if victim == "gateway":
        assert "the gateway ended, so the sandbox was stopped" in err
        assert process.returncode == 125
    starts_and_ends = [event["event"] for event in cloister.events() if event["event"] in ("start", "end")]
    assert starts_and_ends == ["start", "end"][: 1 if victim == "session" else 2]
    eventually(lambda: not cloister.processes(), "every process of the sandbox is gone")
    done = cloister.run("echo", "again")
    assert done.out == "again\n", done
    if victim == "session":
        assert "had been killed" in done.err
    assert sorted(os.listdir(cloister.project)) == before
    assert list((cloister.state / "runs").iterdir()) == []
    assert str(cloister.base) not in Path("/proc/mounts").read_text()


def test_a_hung_gateway_is_told_and_nothing_leaves(user_cloister: Cloister) -> None:
    """NET-8: hung, not dead. The sandbox lives on; what it asks for meanwhile goes nowhere, and is answered afterwards."""
    process = user_cloister.start(
        "run",
        "--",
        "/bin/sh",
        "-c",
        "echo ready; read go; curl -sS --max-time 1 https://a.example.test; echo code $?; cat",
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "ready\n"
    gateway = record(user_cloister)["others"][0][0]
    os.kill(gateway, signal.SIGSTOP)
    process.stdin.write("go\n")
    process.stdin.flush()
    assert process.stdout.readline() in ("code 28\n", "code 6\n", "code 7\n")
    lines = [process.stderr.readline() for _ in range(2)]
    assert any("the gateway does not answer" in line for line in lines), lines
    os.kill(gateway, signal.SIGCONT)
    _, err = process.communicate("", timeout=20)
    assert process.returncode == 0, err


def test_a_notice_that_cannot_be_written_unprotects_nothing(user_cloister: Cloister) -> None:
    """Standard error is shared with the agent, who may fill it. The session must neither die of it nor clean up early."""
    script = (
        "echo ready; while :; do mkdir -p .vscode/x 2>/dev/null && touch .vscode/tasks.json && echo BREACHED;"
        " read -t 0.2 line && exit 0; done"
    )
    with open("/dev/full", "w") as full:
        process = subprocess.Popen(
            user_cloister.argv(["run", "--", "/bin/bash", "-c", script]),
            cwd=user_cloister.project, env=user_cloister.environment(), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=full,
        )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    gateway = record(user_cloister)["others"][0][0]
    os.kill(gateway, signal.SIGSTOP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=15)  # the alarm comes after 12 s
    os.kill(gateway, signal.SIGCONT)
    out, _ = process.communicate("end\n", timeout=20)
    assert (process.returncode, out) == (0, "")
    assert os.listdir(user_cloister.project) == []


def test_another_configuration_directory_is_another_policy(user_cloister: Cloister) -> None:
    assert user_cloister.run("true").code == 0
    user_cloister.write(user_cloister.home / "other/cloister/config.toml", "[network]\nalow = []\n", 0o600)
    done = user_cloister.run("true", environment={"XDG_CONFIG_HOME": str(user_cloister.home / "other")})
    assert done.code == 125
    assert "alow" in done.err


def test_a_gateway_that_cannot_load_is_told(user_cloister: Cloister) -> None:
    """Its reason, and an exit code of ours; not a broken pipe's."""
    broken = user_cloister.directory(user_cloister.base / "broken")
    user_cloister.write(broken / "cryptography/__init__.py", "raise ImportError('no OpenSSL here')\n")
    done = user_cloister.run("true", environment={"PYTHONPATH": str(broken)})
    assert done.code == 125, done
    assert "the gateway could not start" in done.err
    assert "no OpenSSL here" in done.err
    assert os.listdir(user_cloister.project) == []


@pytest.mark.parametrize("command", [["logs"], ["policy", "show"], ["doctor"]])
def test_every_command_cleans_up(user_cloister: Cloister, command: list[str]) -> None:
    process = start_idle(user_cloister)
    os.kill(record(user_cloister)["session"][0], signal.SIGKILL)  # type: ignore[arg-type]  # JSON: a pid
    process.communicate(timeout=20)
    assert (user_cloister.project / ".vscode").exists()
    done = user_cloister(*command, cwd=user_cloister.home)
    assert "had been killed" in done.err
    assert os.listdir(user_cloister.project) == []


def test_nohup_stays_in_force(user_cloister: Cloister) -> None:
    user_cloister.prefix = ["nohup"]
    done = user_cloister.sh("grep SigIgn /proc/self/status")
    ignored = int(done.out.split()[1], 16)
    assert ignored & 1 << signal.SIGHUP - 1, done
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores for itself
        assert not ignored & 1 << number - 1, done


def test_a_limit_that_does_not_hold_is_told(user_cloister: Cloister) -> None:
    done = user_cloister("run", "--cpus", "0.5", "--", "sh", "-c", "cat /proc/self/cgroup")
    assert done.code == 0
    assert "0.5 CPUs does not hold" in done.err or "cloister-" in done.out


def test_kill_while_it_starts(cloister: Cloister) -> None:
    """AV-3: at any time. The delays sweep the start; nothing is left whichever step they hit."""
    assert cloister.run("true").code == 0
    before = sorted(os.listdir(cloister.project))
    for delay_ms in range(5, 65, 6):
        process = cloister.start("run", "--", "true")
        select.select([], [], [], delay_ms / 1000)
        process.kill()
        process.communicate(timeout=20)
    eventually(lambda: not cloister.processes(), "every process of the sandboxes is gone")
    assert cloister.run("true").code == 0
    assert sorted(os.listdir(cloister.project)) == before
    assert list((cloister.state / "runs").iterdir()) == []


def test_kill_of_whatever_a_start_has_begun(cloister: Cloister) -> None:
    """AV-3: the gateway, the plumber or what it has become, at any moment: the start fails or goes on, and leaves nothing."""
    assert cloister.run("true").code == 0
    before = sorted(os.listdir(cloister.project))
    killed = set()
    for delay_ms in range(0, 60, 4):
        process = cloister.start("run", "--", "true")
        eventually(lambda: bool(children(process.pid)) or process.poll() is not None, "it begins something")  # noqa: B023
        select.select([], [], [], delay_ms / 1000)
        for pid in children(process.pid)[-1:]:  # the newest
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)
        _, err = process.communicate(timeout=20)
        assert process.returncode in (0, 125, 137), err
        assert "Traceback" not in err
    assert killed, "the control: something was killed"
    eventually(lambda: not cloister.processes(), "every process of the sandboxes is gone")
    assert cloister.run("true").code == 0
    assert sorted(os.listdir(cloister.project)) == before
    assert list((cloister.state / "runs").iterdir()) == []


def test_two_sandboxes_side_by_side(cloister: Cloister) -> None:
    """The first to end must not unprotect the second."""
    (cloister.project / ".git").mkdir()
    cloister.own(cloister.project / ".git")
    first = start_idle(cloister)
    second = cloister.start(
        "run", "--", "/bin/sh", "-c",
        "echo ready; cat; mkdir .vscode 2>/dev/null; echo x > .vscode/tasks.json && echo BREACHED; echo done",
    )  # fmt: skip
    assert second.stdout is not None
    assert second.stdout.readline() == "ready\n"
    first.communicate("", timeout=20)
    out, _ = second.communicate("", timeout=20)
    assert out == "done\n"
    assert sorted(os.listdir(cloister.project)) == [".git"]


def test_sandboxes_within_each_other(cloister: Cloister) -> None:
    """Two projects, one in the other: what protects the inner for both must outlive the first to end."""
    inner = cloister.directory(cloister.project / "inner")
    cloister.write(inner / ".git/HEAD", "ref: refs/heads/main\n")
    cloister.write(inner / ".git/config", "[core]\n\tbare = false\n")
    for name in ("objects", "refs"):
        cloister.directory(inner / ".git" / name)
    script = "echo ready; cat; mkdir -p inner/.git/hooks; echo x > inner/.git/hooks/pre-commit && echo BREACHED; echo done"
    outer = cloister.start("run", "--", "/bin/sh", "-c", script)
    assert outer.stdout is not None
    assert outer.stdout.readline() == "ready\n"
    done = cloister.run("echo", "inner", cwd=inner)
    assert (done.code, done.out) == (0, "inner\n"), done
    out, err = outer.communicate("", timeout=20)
    assert out == "done\n", (out, err)
    assert sorted(os.listdir(inner / ".git")) == ["HEAD", "config", "objects", "refs"]


def test_a_host_without_user_namespaces(world: Callable[[Identity], Cloister]) -> None:
    """One clear sentence at once, as root too, where the mapping of owners needs a namespace of its own.

    (For an ordinary user the same message has unit tests: forbidding namespaces needs root.)
    """
    if os.geteuid() != 0:
        pytest.skip("forbidding user namespaces needs root")
    cloister = world(Identity(name="root", uid=0, gid=0))
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'
    cloister.prefix = ["unshare", "--user", "--map-root-user", "sh", "-c", forbid, "sh"]
    done = cloister.run("true", timeout_s=30)
    assert done.code == 125
    assert "user namespaces" in done.err
    assert "cloister doctor" in done.err


def test_terminal(cloister: Cloister) -> None:
    """A shell on a terminal: it is one, has its size, job control works, and Ctrl-C ends what runs in front."""
    import pty

    pid, master = pty.fork()
    if pid == 0:
        os.chdir(cloister.project)
        argv = cloister.argv(["run", "--", "/bin/bash", "--norc", "-i"])
        os.execvpe(argv[0], argv, {**os.environ, **cloister.environment(), "PS1": "$ "})
    seen = b""

    def expect(text: bytes) -> None:
        nonlocal seen
        end = time.monotonic() + 20
        while text not in seen:
            ready, _, _ = select.select([master], [], [], max(0.0, end - time.monotonic()))
            assert ready, (text, seen)
            seen += os.read(master, 4096)
        seen = seen[seen.index(text) + len(text) :]

    os.write(master, b"stty rows 33 cols 77; stty size; tty; echo a$((1+1))b\n")
    expect(b"33 77")
    expect(b"/dev/")
    expect(b"a2b")
    os.write(master, b"sleep 100; echo after=$?\n")
    expect(b"sleep 100")
    select.select([], [], [], 0.5)
    os.write(master, b"\x03")
    os.write(master, b"echo still $((40+2))\n")
    expect(b"still 42")
    os.write(master, b"sleep 100 & jobs; kill %1; exit 5\n")
    expect(b"Running")
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 5


@pytest.mark.parametrize(
    "name", ["-rf", "--help", "ünïcode ✂", "a" * 200, "with space", "dollar$HOME", "new\nline", "..x"]
)
def test_project_names(cloister: Cloister, name: str) -> None:
    """CFG-3."""
    project = cloister.directory(cloister.home / name)
    done = cloister.run("sh", "-c", "pwd; echo x > made", cwd=project)
    if "\n" in name:
        assert done.code == 125
        return
    assert (done.code, done.out) == (0, f"{project}\n"), done
    assert (project / "made").exists()


def test_project_configuration_counts_only_once_adopted(cloister: Cloister) -> None:
    """CFG-1."""
    config = cloister.write(cloister.project / "cloister.toml", '[network]\nallow = ["api.example.test"]\n')
    done = cloister.run("true")
    assert done.code == 125
    assert "cloister trust" in done.err
    assert cloister("trust", "--yes").code == 0
    assert (
        cloister.sh(
            "echo '[network]' > cloister.toml || rm -f cloister.toml || mv cloister.toml x; true"
        ).code
        == 0
    )
    assert config.read_text() == '[network]\nallow = ["api.example.test"]\n'
    config.write_text('[network]\nallow = ["evil.example.test"]\n')
    done = cloister.run("true")
    assert done.code == 125
    assert "evil.example.test" in done.err


@pytest.mark.parametrize("directory", ["/", "/usr", "HOME", "/nonexistent"])
def test_a_workspace_that_must_not_be_one(cloister: Cloister, directory: str) -> None:
    place = str(cloister.home) if directory == "HOME" else directory
    done = cloister("run", "-C", place, "--", "true")
    assert done.code == 125
    assert done.err.startswith("cloister: ")
    assert "→" in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["rnu", "--", "true"], 2, "did you mean: cloister run"),
        (["run"], 2, "a command is missing"),
        (["run", "--"], 2, "a command is missing"),
        (["run", "--nope", "true"], 2, "--nope"),
        ([], 2, ""),
        (["--version"], 0, ""),
    ],
)
def test_usage(user_cloister: Cloister, arguments: list[str], code: int, message: str) -> None:
    done = user_cloister(*arguments)
    assert done.code == code, done
    assert message in done.err
    assert "Traceback" not in done.err
