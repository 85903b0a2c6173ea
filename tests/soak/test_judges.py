"""The judges of a soak: the schedule is a function of its seed, and the ledger finds what does not fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest

from tests.soak import ledger
from tests.soak.inside import places
from tests.soak.ledger import Story
from tests.soak.lives import Lived
from tests.soak.schedule import Fault, KeptVictim, Victim, schedule


def test_the_same_seed_gives_the_same_schedule() -> None:
    assert schedule("a", 600.0) == schedule("a", 600.0)
    assert schedule("a", 600.0) != schedule("b", 600.0)


@pytest.mark.parametrize("seed", ["a", "b", "c"])
def test_each_kind_comes_before_any_comes_twice(seed: str) -> None:
    made = schedule(seed, 600.0)
    for kinds, all_kinds in (
        ([life.victim for life in made.lives], get_args(Victim)),
        ([life.victim for life in made.kept], get_args(KeptVictim)),
        ([outage.kind for outage in made.outages], get_args(Fault)),
    ):
        assert set(kinds[: len(all_kinds)]) == set(all_kinds)


LIFE = Lived(name="run0", world="run", victim="gateway", lanes=1, sandbox="s", killed_at=100.0)
TRIAL = "run0-0-1"
BEGAN = {"trial": TRIAL, "kind": "echo", "began": 10.0}
ENDED = {"trial": TRIAL, "outcome": "whole", "detail": "", "ended": 11.0}
SEEN: dict[str, Any] = {
    "origin": places.API, "trial": TRIAL, "path": f"/echo/{TRIAL}", "credential": True, "leaked": False, "at": 10.5,
}  # fmt: skip
START, END = ({"time": "t", "sandbox": "s", "event": event} for event in ("start", "end"))
REQUEST = {"time": "t", "sandbox": "s", "event": "request", "host": places.API, "path": f"/echo/{TRIAL}"}
STORY = Story(
    lives=[LIFE], notes=[BEGAN, ENDED], seen=[SEEN], audit=[START, REQUEST, END], outages=[], published=0
)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, None),
        ({"audit": [START, END]}, "a request that has no line"),
        ({"audit": [START, END], "notes": [BEGAN, {**ENDED, "ended": 99.8}]}, None),  # in hand when it was killed
        ({"audit": [START, END], "notes": [BEGAN]}, None),
        ({"lives": [replace(LIFE, killed_at=None)], "notes": [BEGAN]}, "never ended"),
        ({"notes": [BEGAN, {**ENDED, "outcome": "wrong"}]}, "wrong"),
        ({"notes": [BEGAN, {**ENDED, "outcome": "failed"}]}, "failed"),
        ({"notes": [BEGAN, {**ENDED, "outcome": "failed"}], "outages": [(10.5, 12.0)]}, None),
        ({"notes": [BEGAN, {**ENDED, "outcome": "wrong"}], "outages": [(10.5, 12.0)]}, "wrong"),
        ({"notes": [{**BEGAN, "kind": "cut"}, ENDED]}, "whole"),  # what breaks must not look whole
        ({"notes": [{**BEGAN, "kind": "misplaced"}, {**ENDED, "outcome": "refused"}]}, "was to be refused"),
        ({"notes": [{**BEGAN, "kind": "misplaced"}, {**ENDED, "outcome": "refused"}], "audit": [START, END]}, "without a line"),
        ({"seen": [{**SEEN, "leaked": True}]}, "not bound"),
        ({"seen": [{**SEEN, "credential": False}]}, "control"),
        ({"seen": [SEEN, {**SEEN, "origin": places.EVIL}]}, "no rule grants"),
        ({"seen": [SEEN, {**SEEN, "trial": "run0-9-9"}]}, "nobody has tried"),
        ({"audit": [START, REQUEST]}, "not one start and one end"),
        ({"audit": [START, REQUEST, END, END]}, "not one start and one end"),
        ({"audit": [START, REQUEST, END, {**END, "event": "?"}]}, "odd line"),
        ({"audit": [START, REQUEST, END, {**END, "event": "alarm", "reason": "internal error: X"}]}, "internal error"),
        ({"published": 1}, "published port"),
    ],
)  # fmt: skip
def test_the_ledger_finds_what_does_not_fit(changes: dict[str, Any], sentence: str | None) -> None:
    found = list(ledger.wrong(replace(STORY, **changes)))
    if sentence is None:
        assert found == []
    else:
        assert any(sentence in one for one in found), found
