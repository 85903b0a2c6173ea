"""What an engine says when it is to remove containers, and what is made of that."""

from __future__ import annotations

from typing import Any

import pytest

from cloister.errors import HostError
from cloister.runtimes import oci, oci_exec_argv
from cloister.system.proc import Finished

NAMES = oci_exec_argv.Names(sandbox="s", project="p")
GONE = b"Error response from daemon: No such container: cloister-s-agent"
BUSY = b"tried to kill container, but did not receive an exit event"


class Engine:
    """One that gives these answers, in this order."""

    name = "docker"

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)

    def ask(self, *_: str, timeout_s: float) -> Finished:
        said = self.answers.pop(0)
        return Finished(code=bool(said), output=b"", errors=said)


@pytest.mark.parametrize("answers", [(b"",), (GONE,), (BUSY, b""), (BUSY, GONE)])
def test_a_busy_engine_is_asked_again(answers: tuple[bytes, ...]) -> None:
    engine: Any = Engine(*answers)
    oci.remove(engine, NAMES)
    assert engine.answers == []


def test_an_engine_that_does_not_do_it_is_an_error() -> None:
    engine: Any = Engine(BUSY, BUSY, b"")
    with pytest.raises(HostError):
        oci.remove(engine, NAMES)
    assert engine.answers == [b""]
