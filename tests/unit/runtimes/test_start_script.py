"""What starts a command is recognised by whoever watches."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from cloister.runtimes import oci_argv, start_script

CONFINED = """\
Name:\tsh
CapInh:\t0000000000000000
CapPrm:\t0000000000000000
CapEff:\t0000000000000000
CapBnd:\t0000000000000000
CapAmb:\t0000000000000000
NoNewPrivs:\t1
Seccomp:\t2
Seccomp_filters:\t1
"""


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("", ""),
        ("CapEff:\t0000000000000000", "CapEff:\t0000000000000400"),
        ("CapBnd:\t0000000000000000", "CapBnd:\t00000000a80425fb"),
        ("NoNewPrivs:\t1", "NoNewPrivs:\t0"),
        ("Seccomp:\t2", "Seccomp:\t0"),
    ],
)
def test_a_command_that_nobody_sees_looks_at_itself(tmp_path: Path, line: str, instead: str) -> None:
    """The script of a virtual machine's sandboxes, with a status of the test's."""
    status = tmp_path / "status"
    status.write_text(CONFINED.replace(line, instead) if line else CONFINED)
    script = oci_argv.CHECK_SCRIPT.replace("/proc/self/status", str(status)) + "echo ran"
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=False)
    if line:
        assert (done.returncode, done.stdout) == (125, "")
        assert instead.replace("\t", " ") in done.stderr
    else:
        assert (done.returncode, done.stdout, done.stderr) == (0, "ran\n", "")


def test_a_status_that_cannot_be_read_is_no_permission(tmp_path: Path) -> None:
    script = oci_argv.CHECK_SCRIPT.replace("/proc/self/status", str(tmp_path / "none")) + "echo ran"
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode != 0, done.stdout) == (True, "")


@pytest.mark.parametrize("before", ["", "read -r go <&8 || exit 125\n" * 100])
def test_what_starts_a_command_is_recognised_though_its_words_are_cut(before: str) -> None:
    rendered = start_script.start_argv(("npm", "ci"), pids=None, memory_bytes=None, before=before)
    assert start_script.is_start(tuple(word[:64] for word in rendered))
    assert not start_script.is_start(("/bin/sh", "-c", "echo", "sh"))
    assert not start_script.is_start(())


def test_a_signal_from_within_reaches_the_process_of_that_mark(tmp_path: Path) -> None:
    """And no other: neither one of another mark, nor what an agent writes there."""
    (tmp_path / "1000").mkdir()
    (tmp_path / "1000/.entered-x; touch breached").write_text("one\n")
    waiting = ("/bin/sh", "-c", "trap 'echo got; exit 7' USR1; echo on; while :; do sleep 0.01; done")
    started = {}
    for mark in ("one", "other"):
        argv = start_script.start_argv(
            waiting, pids=None, memory_bytes=None, before=there(start_script.MARK_SCRIPT, tmp_path)
        )
        started[mark] = subprocess.Popen(
            argv, stdout=subprocess.PIPE, text=True, env={"CLOISTER_ENTERED": mark, "PATH": "/usr/bin:/bin"}
        )
    try:
        for process in started.values():
            assert process.stdout is not None
            assert process.stdout.readline() == "on\n"
        for mark, code in (("none", 1), ("one", 0)):
            argv = start_script.signal_argv(mark, signal.SIGUSR1)
            argv[2] = there(argv[2], tmp_path)
            assert subprocess.run(argv, cwd=tmp_path, check=False).returncode == code
        assert started["one"].communicate(timeout=20)[0] == "got\n"
        assert started["one"].returncode == 7
        assert started["other"].poll() is None
        assert not (tmp_path / "breached").exists()
    finally:
        for process in started.values():
            process.kill()
            process.communicate()


def there(script: str, directory: Path) -> str:
    assert "/run/user/" in script
    return script.replace("/run/user/", f"{directory}/")
