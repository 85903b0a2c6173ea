"""A sandbox that ends just as its session begins to watch its mounts."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister.runtimes import mount_guard
from cloister.sandbox.protect import Protection
from cloister.session import wait


@pytest.fixture
def zombie() -> Iterator[int]:
    """A process that has ended, and that nobody has waited for."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    yield pid
    os.waitpid(pid, 0)


@pytest.fixture
def waiter() -> Iterator[wait.Waiter]:
    handlers = {number: signal.getsignal(number) for number in range(1, 32)}
    yield wait.Waiter(lambda _: None, lambda _: None)
    for number, handler in handlers.items():
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, handler)


def test_a_sandbox_that_has_just_ended_needs_no_guard(
    zombie: int, waiter: wait.Waiter, tmp_path: Path
) -> None:
    def guard(init: int) -> mount_guard.Guard:
        place = mount_guard.Place(
            init=init, sandbox_id="s", public_directory=str(tmp_path), shared=str(tmp_path)
        )
        return mount_guard.Guard(place, Protection(workspace=str(tmp_path)), lambda _: None)

    with pytest.raises(OSError, match="Invalid argument"):
        guard(zombie)  # what the kernel says
    waiter.is_started(zombie, made=True)
    assert waiter._guarded(guard, select.poll()) is None
    assert waiter._guarded(lambda _: guard(1 << 22), select.poll()) is None
