"""What bubblewrap leaves if it is killed too early: unshare(1) plays it, with a child in a pid namespace of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from cloister.runtimes import orphans
from cloister.sandbox import registry

pytestmark = pytest.mark.sandbox

DEADLINE_S = 20.0
MAKER = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "sleep", "60"]


def child_of(maker: int) -> int:
    end = time.monotonic() + DEADLINE_S
    while True:
        for child in registry.children(maker):
            with open(f"/proc/{child}/comm", encoding="utf-8") as file:
                if file.read() == "sleep\n":
                    return child
        assert time.monotonic() < end


def kill_a_maker() -> int:
    """The child that it leaves."""
    maker = subprocess.Popen(MAKER)
    child = child_of(maker.pid)
    maker.kill()
    maker.wait()
    return child


def test_a_child_that_was_left_is_ended() -> None:
    with orphans.Adopted():
        child = kill_a_maker()
        assert child in registry.children(os.getpid()), "the control: it has fallen to us"
    assert registry.identify(child) is None


def test_once_it_is_made_nothing_falls_to_us() -> None:
    with orphans.Adopted() as adopted:
        adopted.made()
        child = kill_a_maker()
        assert child not in registry.children(os.getpid())
    assert registry.identify(child) is not None
    os.kill(child, signal.SIGKILL)


def test_what_a_program_of_the_user_has_left_in_the_background_stays() -> None:
    script = textwrap.dedent("""
        import os, subprocess, sys
        child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        print(child.pid, flush=True)
        os._exit(0)
    """)
    with orphans.Adopted():
        said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        left = int(said.stdout)
        assert left in registry.children(os.getpid()), "the control: it has fallen to us"
    assert registry.identify(left) is not None
    os.kill(left, signal.SIGKILL)
    os.waitpid(left, 0)
