"""Real processes in a real network namespace: the one that must go, and one that must stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cloister.network import evict
from cloister.system import linux


@contextmanager
def _process(*, apart: bool) -> Iterator[int]:
    """A process that waits for ever, in a network namespace of its own or in ours."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            if apart:
                linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNET)
            os.write(writing, b"x")
            signal.pause()
        os._exit(1)
    os.close(writing)
    try:
        assert os.read(reading, 1) == b"x"
        yield pid
    finally:
        os.close(reading)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)


def test_what_is_left_in_the_namespace_dies_and_nothing_else() -> None:
    with _process(apart=True) as inside, _process(apart=True) as other, _process(apart=False) as outside:
        namespace = os.open(f"/proc/{inside}/ns/net", os.O_RDONLY)
        try:
            assert evict.evict(namespace) == 1
            assert os.WTERMSIG(os.waitpid(inside, 0)[1]) == signal.SIGKILL
            for pid in (other, outside):
                assert os.waitpid(pid, os.WNOHANG) == (0, 0)
            assert evict.evict(namespace) == 0
        finally:
            os.close(namespace)


def test_nothing_dies_in_our_own_namespace() -> None:
    """Whoever passes it by mistake would end everything of the user's. Tried from a namespace of the test's own."""
    code = (
        "import os, subprocess, sys; from cloister.network import evict; "
        "other = subprocess.Popen(['sleep', '60']); "
        "killed = evict.evict(os.open('/proc/self/ns/net', os.O_RDONLY)); "
        "alive = other.poll() is None; other.kill(); print(killed, alive)"
    )
    argv = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "0 True\n", done.stderr
