"""Whose turn it is among the host's probes."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from cloister.verify import passes
from cloister.verify.outside.turns import Turns

_END_S = 10.0


@pytest.fixture
def turns() -> Iterator[Turns]:
    made = Turns(2)
    yield made
    made.end()
    made.close()


def takers(turns: Turns, count: int) -> tuple[list[threading.Thread], list[bool]]:
    """As many that each wait for a turn and keep it, and what they got."""
    got: list[bool] = []
    threads = [threading.Thread(target=lambda: got.append(turns.take())) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, got


def test_those_who_wait_have_none_if_it_never_begins(turns: Turns) -> None:
    threads, got = takers(turns, 5)
    turns.end()
    for thread in threads:
        thread.join(_END_S)
    assert got == [False] * 5


def test_as_many_at_a_time_as_there_are_and_the_next_when_one_is_given_back(turns: Turns) -> None:
    turns.begin()
    turns.begin()  # makes no more of them
    assert [turns.take(), turns.take()] == [True, True]
    turns.give()
    assert turns.take()
    turns.end()
    assert [turns.take(), turns.take()] == [False, False]


def test_the_first_line_of_the_probes_inside_begins_it(turns: Turns) -> None:
    lines = iter((b'{"begun": true}\n', b'{"done": true}\n'))
    assert passes.heard(lines, "first", lambda _pass, _probe: None, turns.begin) == {}
    assert turns.take()
