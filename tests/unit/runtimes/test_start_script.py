"""What starts a command is recognised by whoever watches."""

from __future__ import annotations

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
