"""What must be true before a command may run: judged on texts of /proc, and shown to stop weakened sandboxes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cloister.runtimes import invariants

STATUS = "Name:\tsh\nUid:\t1000\t1000\t1000\t1000\n" + "".join(
    f"{name}:\t0000000000000000\n" for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
) + "NoNewPrivs:\t1\nSeccomp:\t2\n"  # fmt: skip
INTERFACES = "Inter-|   Receive\n face |bytes\n    lo:  0 0\n"


def test_a_sandbox_that_is_one() -> None:
    assert invariants.breaches(STATUS, INTERFACES) == ()


def test_what_cannot_be_read_denies_by_default() -> None:
    assert len(invariants.breaches("", "")) == 9


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("CapEff:\t0000000000000000", "CapEff:\t0000000000002000", "CapEff"),
        ("CapBnd:\t0000000000000000", "CapBnd:\t000001ffffffffff", "CapBnd"),
        ("CapAmb:\t0000000000000000\n", "", "CapAmb"),
        ("NoNewPrivs:\t1", "NoNewPrivs:\t0", "no_new_privs"),
        ("Seccomp:\t2", "Seccomp:\t0", "system call filter"),
        ("Uid:\t1000\t1000\t1000\t1000", "Uid:\t1000\t0\t1000\t1000", "root"),
    ],
)
def test_each_weakness_is_seen(old: str, new: str, word: str) -> None:
    (found,) = invariants.breaches(STATUS.replace(old, new), INTERFACES)
    assert word in found


@pytest.mark.parametrize("more", ["  eth0:  0 0\n", "  wg0:  0 0\n"])
def test_another_interface_is_seen(more: str) -> None:
    (found,) = invariants.breaches(STATUS, INTERFACES + more)
    assert more.partition(":")[0].strip() in found


PROVE = """
import os, socket, sys
from cloister.network import plumb
from cloister.system import linux
{before}
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
plumb.enter_fresh_namespaces(os.geteuid(), os.getegid())
plumb.pass_sockets([], theirs)
{between}
try:
    plumb.prove()
except OSError as error:
    print(error.strerror)
else:
    print("proven")
"""


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("before", "between", "said"),
    [
        ("", "", "proven"),
        # Mutations: another interface; nobody at the captured port; a listener where there must be none.
        (
            "",
            "import subprocess; subprocess.run(['ip', 'link', 'add', 'more', 'type', 'bridge'], check=True)",
            "the namespace has other interfaces than loopback",
        ),
        (
            "plumb.DNS_PORT = 54",
            "plumb.DNS_PORT = 53",
            "192.0.2.1:53 did not end as it must: Connection refused",
        ),
        (
            "",
            "more = socket.create_server(('0.0.0.0', 9))",
            "192.0.2.1:9 did not end as it must: it was accepted",
        ),
    ],
)
def test_the_namespace_is_proven(before: str, between: str, said: str) -> None:
    script = PROVE.format(before=before, between=between)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert said in done.stdout, done


# `cloister run` with one protection taken away, in a process of the test's: no switch of cloister's does that.
WEAKENED = """
import os, sys
from cloister.runtimes import bwrap_argv, seccomp
from cloister.network import plumb
{mutation}
sys.argv = ["cloister", "run", "--", "touch", "ran"]
from cloister.cli import main
main()
"""
WITHOUT_OPTION = """
whole = bwrap_argv.options
def options(*arguments, **named):
    rendered = whole(*arguments, **named)
    index = rendered.index({option!r})
    del rendered[index:index + {count}]
    return rendered
bwrap_argv.options = options
"""


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("mutation", "said"),
    [
        ("", ""),
        (WITHOUT_OPTION.format(option="--cap-drop", count=2), "it has capabilities"),
        (WITHOUT_OPTION.format(option="--seccomp", count=2), "it has no system call filter"),
        ("plumb.enter_fresh_namespaces = lambda uid, gid: None", "could not be set up"),
    ],
)
def test_a_weakened_sandbox_does_not_run_its_command(tmp_path: Path, mutation: str, said: str) -> None:
    home, project = tmp_path / "home", tmp_path / "project"
    home.mkdir()
    project.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", WEAKENED.format(mutation=mutation)],
        cwd=project,
        env={"HOME": str(home), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said in done.stderr, done
    assert (project / "ran").exists() is not bool(said), done
