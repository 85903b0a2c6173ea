"""Looking at the process that becomes the command, which a signal may end before it does."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from cloister.errors import CloisterError
from cloister.session import live


def test_one_that_has_ended_is_left_to_the_wait() -> None:
    process = subprocess.Popen(["/bin/true"])
    process.wait()
    assert not live.is_confined(process.pid, process.pid)
    assert not live.is_confined(None, process.pid)


def test_one_whose_child_a_signal_has_ended_is_given_time_to_notice() -> None:
    """What a signal between the gate and the look leaves: pid 1 lives for a moment, its child is a zombie or gone."""
    process = subprocess.Popen(["/bin/sh", "-c", "sleep 60; sleep 0.3"], start_new_session=True)
    try:
        while not (children := _children(process.pid)):
            pass
        os.kill(children[0], signal.SIGTERM)
        assert not live.is_confined(children[0], process.pid)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("is_seen", [True, False])
def test_one_that_lives_unconfined_is_refused(is_seen: bool) -> None:
    with pytest.raises(CloisterError, match="is not what it must be"):
        live.is_confined(os.getpid() if is_seen else None, os.getpid())


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(one) for one in file.read().split()]
