"""What happens when, in one soak: a function of its seed and length alone.

Rule 1: no clock, no I/O. The same seed and length give the same schedule; a test compares them.
Rule 2: moments are seconds from the beginning; how far traffic has come at a moment depends on the machine.
Rule 3: each kind of kill and fault comes once before any comes twice, so that a short soak has as many as fit.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

# Of a sandbox that `run` made. "start": of the session, at a moment of the start, when there may be a plumber.
Victim = Literal["session", "gateway", "bubblewrap", "init", "agent", "start", "none"]
# Of one that stays; "client" and "guide" are of an `exec`.
KeptVictim = Literal["session", "gateway", "bubblewrap", "init", "first", "client", "guide", "none"]
# Of the origins: killed and started anew; stopped and continued. "hang": the victim's gateway stopped and continued.
Fault = Literal["kill", "stop", "hang"]
PAUSE_S = 3.0


@dataclass(frozen=True, kw_only=True)
class Life:
    """One sandbox after the other: how long it has traffic, and what is killed then."""

    name: str
    lanes: int
    lasts_s: float
    victim: str


@dataclass(frozen=True, kw_only=True)
class Outage:
    """A fault of the network: from `at_s` on for `lasts_s`."""

    kind: Fault
    at_s: float
    lasts_s: float


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """`steady_lanes`: of the one sandbox that lives as long as the soak."""

    seed: str
    seconds: float
    steady_lanes: int
    lives: tuple[Life, ...]
    kept: tuple[Life, ...]
    outages: tuple[Outage, ...]

    @property
    def warm_s(self) -> float:
        """When the first measurement is taken."""
        return min(60.0, self.seconds / 3)


def schedule(seed: str, seconds: float) -> Schedule:
    """The schedule of a soak."""
    return Schedule(
        seed=seed,
        seconds=seconds,
        steady_lanes=4,
        lives=tuple(_lives(random.Random(f"{seed}/lives"), "run", get_args(Victim), seconds)),
        kept=tuple(_lives(random.Random(f"{seed}/kept"), "kept", get_args(KeptVictim), seconds)),
        outages=tuple(_outages(random.Random(f"{seed}/outages"), seconds)),
    )


def _lives(rng: random.Random, name: str, victims: tuple[str, ...], seconds: float) -> Iterator[Life]:
    """More than can be lived: a start takes time of its own."""
    order = _rounds(rng, victims)
    total, number = 0.0, 0
    while total < seconds:
        victim = next(order)
        lasts_s = rng.uniform(0.005, 0.25) if victim == "start" else rng.uniform(0.3, 5.0)
        yield Life(name=f"{name}{number}", lanes=rng.randrange(1, 4), lasts_s=lasts_s, victim=victim)
        total, number = total + lasts_s, number + 1


def _outages(rng: random.Random, seconds: float) -> Iterator[Outage]:
    order = _rounds(rng, get_args(Fault))
    at_s = rng.uniform(2.0, 5.0)
    while at_s < seconds - 5.0:
        yield Outage(kind=next(order), at_s=at_s, lasts_s=rng.uniform(0.05, 1.5))  # type: ignore[arg-type]  # of Fault
        at_s += rng.uniform(3.0, 15.0)


def _rounds(rng: random.Random, kinds: tuple[str, ...]) -> Iterator[str]:
    while True:
        yield from rng.sample(kinds, len(kinds))
