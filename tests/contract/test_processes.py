"""What runs in a sandbox, the first process and later ones: exit codes, streams, terminals, users, limits."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.contract.conftest import World

STATUS = "grep -E '^(CapEff|CapBnd|CapPrm|CapAmb|CapInh|NoNewPrivs|Seccomp):' /proc/self/status"


@pytest.mark.parametrize("code", [0, 7, 255])
def test_exit_code(kept: World, code: int) -> None:
    assert kept.sh(f"exit {code}").code == code


def test_streams_and_arguments_arrive_unchanged(kept: World) -> None:
    words = ("", "a b", "*", "$HOME", "\\n", "-rf", "ä")
    done = kept.exec("/bin/sh", "-c", 'printf "%s|" "$@"; cat; echo err >&2', "x", *words, stdin="in\nput")
    assert (done.code, done.out, done.err) == (0, "|".join(words) + "|in\nput", "err\n")


def test_a_command_that_is_not_there(kept: World) -> None:
    done = kept.exec("no-such-command")
    assert done.code == 127
    assert "'no-such-command' was not found in the sandbox's PATH" in done.err


def test_environment_and_directory(kept: World) -> None:
    done = kept.cloister(
        "exec",
        "-e",
        "ONE=a b",
        "-e",
        "TWO=x\ny",
        "-w",
        "/tmp",
        "--",
        "/bin/sh",
        "-c",
        'echo "$ONE|$TWO|$PWD"',
    )
    assert done.out == "a b|x\ny|/tmp\n"
    assert kept.sh("pwd").out == f"{kept.cloister.project}\n"


def test_terminal(kept: World) -> None:
    """A terminal is one inside too, and Ctrl-C reaches the command alone."""
    main, other = pty.openpty()
    # setsid(1) --ctty: the terminal is its controlling one, as at a real one.
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait",
         *kept.cloister.argv(["exec", "--", "/bin/sh", "-c", "trap 'echo caught; exit 3' INT; test -t 0 && echo terminal; while :; do read x; done"])],
        cwd=kept.cloister.project, env=kept.cloister.environment(), stdin=other, stdout=other, stderr=other,
    )  # fmt: skip
    os.close(other)
    try:
        assert b"terminal" in until(main, b"terminal")
        os.write(main, b"\x03")
        assert b"caught" in until(main, b"caught")
        assert process.wait(30) == 3
    finally:
        process.kill()
        process.wait()
        os.close(main)


def test_ls_tells_how_it_does(kept: World) -> None:
    """From outside, or, where nothing is seen from here, in its own words."""
    (found,) = json.loads(kept.cloister("ls", "--json").out)
    assert found["running"] is True
    assert found["processes"] >= 1
    assert found["memory_bytes"] > 10_000
    assert found["uptime_s"] > 0


FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
# Perl starts no process of its own to wait, and says when it can be signalled.
WAITING = '$|=1; $SIG{$_}=sub{print "got $_[0]\\n"; exit 7} for @ARGV; print "ready\\n"; sleep 100'


@pytest.mark.parametrize("number", FORWARDED)
@pytest.mark.parametrize("caught", [True, False])
def test_a_signal_to_execs_own_process_reaches_the_command(
    kept: World, number: signal.Signals, caught: bool
) -> None:
    """As `kill` and `timeout` send it: to one process, not to its group."""
    names = [number.name.removeprefix("SIG")] if caught else []
    with started(kept, "/usr/bin/perl", "-e", WAITING, *names) as process:
        process.send_signal(number)
        out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == ((7, f"got {names[0]}\n") if caught else (128 + number, ""))


def test_a_signal_reaches_a_command_without_an_environment(kept: World) -> None:
    """The variable by which a container's command is known can be thrown away."""
    with started(kept, "env", "-i", "/usr/bin/perl", "-e", WAITING, "TERM") as process:
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (7, "got TERM\n")


def test_a_signal_reaches_only_the_command_that_was_meant(kept: World) -> None:
    command = ("/usr/bin/perl", "-e", WAITING, "TERM")
    with started(kept, *command) as one, started(kept, *command) as other:
        one.send_signal(signal.SIGTERM)
        assert one.communicate(timeout=60)[0] == "got TERM\n"
        assert other.poll() is None
        other.send_signal(signal.SIGTERM)
        assert other.communicate(timeout=60)[0] == "got TERM\n"


@contextmanager
def started(world: World, *command: str) -> Iterator[subprocess.Popen[str]]:
    """A command of `exec` that has said that it is ready. What is signalled is cloister itself, not what became its user."""
    process = world.cloister.start("exec", "--", *command)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate(timeout=10)
        yield process
    finally:
        process.kill()
        process.communicate(timeout=60)


def until(descriptor: int, wanted: bytes, deadline_s: float = 30.0) -> bytes:
    end, data = time.monotonic() + deadline_s, b""
    while wanted not in data and select.select([descriptor], [], [], max(0.0, end - time.monotonic()))[0]:
        try:
            data += os.read(descriptor, 4096)
        except OSError:
            break
    return data


def test_identity_and_privileges_of_a_later_process(kept: World) -> None:
    """K-1, K-7."""
    check_status(kept.sh(f"id -u; {STATUS}").out)


def test_identity_and_privileges_of_the_first_process(world: World) -> None:
    """K-1; and a plain run, with its streams and exit code."""
    done = world.cloister(
        "run", "--", "/bin/sh", "-c", f"id -u; {STATUS}; cat >&2; exit 9", stdin="typed", timeout_s=120
    )
    assert (done.code, done.err) == (9, "typed"), done
    check_status(done.out)
    assert world.containers() == []


def check_status(text: str) -> None:
    uid, *lines = text.strip().split("\n")
    values = dict(line.split(":\t") for line in lines)
    assert uid != "0"
    assert {values[key] for key in ("CapEff", "CapBnd", "CapPrm", "CapAmb", "CapInh")} == {"0" * 16}
    assert (values["NoNewPrivs"], values["Seccomp"]) == ("1", "2")


def test_the_agent_is_never_root_of_the_host(kept: World) -> None:
    """K-1 seen from the host: who owns what it writes, and as whom it runs."""
    assert kept.sh("echo x > written; id -un").code == 0
    if not kept.is_remote:  # there it is no file of this host's
        assert (kept.cloister.project / "written").stat().st_uid == kept.cloister.identity.uid
    process = subprocess.Popen(
        kept.cloister.argv(["exec", "--", "/bin/sh", "-c", "echo ready; exec cat"]),
        cwd=kept.cloister.project, env=kept.cloister.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        end = time.monotonic() + 20
        while not (uids := owners(b"cat\0")):  # `exec` comes after "ready"
            assert time.monotonic() < end
        assert 0 not in uids
    finally:
        process.communicate(b"", timeout=30)


def owners(command_line: bytes) -> set[int]:
    found = set()
    for pid in os.listdir("/proc"):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if file.read() == command_line:
                    found.add(os.stat(f"/proc/{pid}").st_uid)
        except OSError:
            continue
    return found


def test_process_limit(kept: World) -> None:
    """K-6: of 400 processes at most 200 start; afterwards the sandbox works."""
    script = "my $n = 0; my @p; for (1..400) { my $p = fork; last unless defined $p; if (!$p) { sleep 60; exit } push @p, $p; $n++ } kill 9, @p; print $n"
    done = kept.perl(script)
    assert 20 < int(done.out) <= 200, done
    assert kept.sh("exit 4").code == 4


def test_memory_limit(kept: World) -> None:
    """K-6: 900 MB do not fit into 512; 64 do."""
    assert kept.perl('my $x = "x" x (64 << 20); print length $x').out == str(64 << 20)
    assert kept.perl('my $x = "x" x (900 << 20); print length $x').code != 0


def test_set_user_id_programs_gain_nothing(kept: World) -> None:
    """FS-4: an image may have some; no_new_privs makes them ordinary. None can be made."""
    done = kept.sh(
        "touch /tmp/s && ! chmod u+s /tmp/s 2>/dev/null && echo refused; su -c id </dev/null 2>&1 | grep -c uid=0"
    )
    assert done.out == "refused\n0\n", done
