"""Looking at a container's first process, which may have ended where nothing holds it back."""

from __future__ import annotations

import os
import subprocess

import pytest

from cloister.errors import CloisterError
from cloister.session import container


@pytest.fixture
def ended() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen(["/bin/true"])
    process.wait()
    return process.pid


def test_one_that_was_not_held_back_and_has_ended_is_left_to_the_wait(ended: int) -> None:
    container._check_invariants(ended, held=False)


def test_one_that_has_ended_although_it_was_held_back_is_refused(ended: int) -> None:
    with pytest.raises(CloisterError, match="is not what it must be"):
        container._check_invariants(ended, held=True)


@pytest.mark.parametrize("held", [True, False])
def test_one_that_runs_unconfined_is_refused(held: bool) -> None:
    with pytest.raises(CloisterError, match="is not what it must be"):
        container._check_invariants(os.getpid(), held=held)
