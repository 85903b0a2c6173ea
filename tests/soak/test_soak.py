"""Soak: see `soak.py`. `make soak` is the long one; here are short ones, and weakened builds that must not pass."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.soak import ledger, leftovers
from tests.soak.origins import spellings
from tests.soak.schedule import schedule
from tests.soak.soak import Soak
from tests.soak.weakened import WEAKENINGS
from tests.soak.worlds import CANARIES
from tests.world import Cloister, Identity

pytestmark = [pytest.mark.sandbox]

_CALM = ("echo", "burst", "plain", "short", "line", "refused-method", "misplaced")
SECONDS = float(os.environ.get("CLOISTER_SOAK_SECONDS", "20"))
ONLY = tuple(os.environ.get("CLOISTER_SOAK_ONLY", "").split())
SEED = os.environ.get("CLOISTER_SOAK_SEED", "")
# Between the end of the first minute and the end, at rest; docs/threat-model.md says how they were found.
RSS_BOUND_KIB = 20 * 1024
DESCRIPTORS_BOUND = 24


def wrong(soak: Soak) -> Iterator[str]:
    """Everything that a soak has found, as sentences."""
    yield from soak.seen.unkept
    yield from ledger.wrong(soak.story())
    for world in soak.worlds:
        yield from leftovers.found(world.cloister, world.traces)
        yield from _canaries(world.cloister, world.traces.output)
    yield from growth(soak)


def growth(soak: Soak) -> Iterator[str]:
    """What the steady gateway holds at the end that it did not hold before."""
    warm, end = soak.seen.warm, soak.seen.end
    if warm is None or end is None:
        yield "the steady gateway was not measured"
        return
    if end.rss_kib - warm.rss_kib > RSS_BOUND_KIB:
        yield f"the gateway's memory grew from {warm.rss_kib} to {end.rss_kib} KiB"
    if end.descriptors - warm.descriptors > DESCRIPTORS_BOUND:
        yield f"the gateway's descriptors grew from {warm.descriptors} to {end.descriptors}"
    if end.children > warm.children or end.threads > warm.threads + 8:
        yield f"the gateway's threads or children grew: {warm} to {end}"


def _canaries(cloister: Cloister, output: list[str]) -> Iterator[str]:
    forms = [form for value in CANARIES.values() for form in spellings(value)]
    for text in output:
        if any(form in text.encode() for form in forms):
            yield f"a credential is in what cloister said: {text[:200]!r}"
    for path in cloister.base.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.name != "seen.jsonl":
            data = path.read_bytes()
            if any(form in data for form in forms):
                yield f"a credential is in {path}"


def report(soak: Soak) -> str:
    """The figures of one soak."""
    story = soak.story()
    lines = Counter(str(event["event"]) for event in story.audit)
    outcomes = Counter(trial.outcome or "in hand" for trial in ledger.trials(story).values())
    took = sorted(
        (t.ended - t.began, n, t.kind, t.outcome, t.detail)
        for n, t in ledger.trials(story).items()
        if t.ended
    )
    moved = sum(int(e.get("sent_bytes") or 0) + int(e.get("received_bytes") or 0) for e in story.audit)
    return "\n".join(
        [
            f"seed {soak.schedule.seed}, {soak.schedule.seconds:g} s",
            f"trials {sum(outcomes.values())}: {dict(outcomes)}",
            f"origins saw {len(story.seen)}; audit lines {len(story.audit)}: {dict(lines)}",
            f"bytes by the audit log {moved / 1e6:.0f} MB; published exchanges {story.published}",
            f"kills and faults {dict(sorted(soak.seen.faults.items()))}",
            f"slowest trials {[(f'{s:.1f} s', *rest) for s, *rest in took[-5:]]}",
            f"under traffic {[(f'{at:.0f} s', one.rss_kib, one.descriptors) for at, one in soak.seen.samples]}",
            f"steady gateway: warm {soak.seen.warm}, end {soak.seen.end}",
        ]
    )


@pytest.mark.timeout(SECONDS * 2 + 240)
@pytest.mark.parametrize(
    ("seed", "identity"),
    [(SEED or "cloister", "user"), (SEED or "abbey", "root")],
    ids=["user", "root"],
    indirect=["identity"],
)
def test_soak(
    seed: str, world: Callable[[Identity], Cloister], identity: Identity, client_packages: Path
) -> None:
    began = time.monotonic()
    print(f"\nsoak: --seed {seed} --seconds {SECONDS:g}", flush=True)
    soak = Soak(schedule(seed, SECONDS), lambda: world(identity), client_packages, only=ONLY)
    soak.run()
    found = list(wrong(soak))
    print(report(soak), f"took {time.monotonic() - began:.0f} s", sep="\n", flush=True)
    print(f"{len(found)} findings", *found[:40], sep="\n", flush=True)
    assert found == []


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", ["nothing", *WEAKENINGS])
def test_a_weakened_build_is_found(
    name: str, world: Callable[[Identity], Cloister], user: Identity, client_packages: Path
) -> None:
    """One sandbox that lives on, a little of the traffic, no kills; and the control, in which nothing is found."""
    weakening = WEAKENINGS.get(name)
    calm = replace(schedule("weakened", 9.0), lives=(), kept=(), outages=())
    soak = Soak(calm, lambda: world(user), client_packages, only=weakening.trials if weakening else _CALM)
    if weakening is not None:
        for one in soak.worlds:
            weakening.install(one.cloister.directory(one.cloister.base / "weakened"))
            one.cloister.extra_environment["PYTHONPATH"] = str(one.cloister.base / "weakened")
    soak.run()
    found = list(wrong(soak))
    if weakening is None:
        assert found == []
    else:
        assert any(weakening.sentence in sentence for sentence in found), found[:20]
