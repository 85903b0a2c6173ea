"""Judge what a probe brought home: held, breached, not applicable, or a control that failed.

Rule 1: a breach that anybody has seen, inside or outside, is a breach, whatever else went wrong.
Rule 2: "held" needs attacks that were tried in every pass, and controls that succeeded; a control of the network counts
        only if the origin outside has seen it.
Rule 3: no I/O. What comes from inside is data; where the host has a witness of its own, the witness decides.
"""

from __future__ import annotations

import json
import re
from enum import Enum

from cloister.errors import UntrustedInputError
from cloister.values import dataclass, field, replace
from cloister.verify.probes import HOST, INSIDE, LATER, Probe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FIRST, EXEC = "first", "exec"  # passes; the host's own is HOST
_LATER_ID = "K-7"
_EVIDENCE_LIMIT = 60
_TEXT_LIMIT_CHARACTERS = 400


class Outcome(Enum):
    HELD = "held"
    BREACHED = "breached"
    NOT_APPLICABLE = "not applicable"
    CONTROL_FAILED = "control failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One thing that was tried, as the sandbox tells it."""

    what: str
    succeeded: bool
    got: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What one pass of one probe said. `missing`: why it could not be tried; `notes`: what its claim does not reach."""

    attacks: tuple[Attempt, ...] = ()
    controls: tuple[Attempt, ...] = ()
    notes: tuple[str, ...] = ()
    missing: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """What the host saw itself: marks that arrived outside, and for single probes what it found or missed there.

    `notes`: what it could not look at, and why.
    """

    marks: frozenset[str] = frozenset()  # "attack-NET-1", "control-NET-1"
    breaches: Mapping[str, tuple[str, ...]]
    failures: Mapping[str, tuple[str, ...]]
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A probe's outcome, with a reason in one line, the evidence, and what was not tried."""

    probe: Probe
    outcome: Outcome
    reason: str
    evidence: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def parse(untrusted_line: bytes) -> tuple[str, Told] | None:
    """One line of inside/; None for its first and last one. UntrustedInputError for anything else."""
    try:
        data = json.loads(untrusted_line)
        if data.get("begun") is True or data.get("done") is True:
            return None
        return str(data["id"]), Told(
            attacks=tuple(_attempt(one) for one in data["attacks"]),
            controls=tuple(_attempt(one) for one in data["controls"]),
            notes=tuple(_text(one) for one in data.get("notes", ())),
            missing=_text(data["missing"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UntrustedInputError(f"the probes printed what cannot be understood: {error}") from None


def judge(
    probe: Probe, told: Mapping[str, Mapping[str, Told]], witness: Witness, passes: Sequence[str]
) -> Result:
    """The outcome of one probe. `told` is pass → id → what it said; `passes` are those that were to be made."""
    if probe.id == _LATER_ID:
        return _later(probe, told, witness, passes)
    wanted = [name for name in passes if (HOST if name == HOST else INSIDE) in probe.sides]
    if not wanted:
        reason = f"it is tried from {probe.sides[0]}, and here is none"
        return Result(probe=probe, outcome=Outcome.NOT_APPLICABLE, reason=reason)
    found = {name: told.get(name, {}).get(probe.id) for name in wanted}
    return _judge(probe, {name: one for name, one in found.items() if one is not None}, witness, wanted)


def _judge(probe: Probe, found: Mapping[str, Told], witness: Witness, passes: Sequence[str]) -> Result:
    absent = [name for name in passes if name not in found]
    evidence = tuple(_lines(found))[:_EVIDENCE_LIMIT]
    breaches = [
        f"{name}: {one.what}: {one.got}"
        for name, told in found.items()
        for one in told.attacks
        if one.succeeded
    ]
    breaches += [f"seen outside: {mark}" for mark in sorted(witness.marks) if mark == f"attack-{probe.id}"]
    breaches += witness.breaches.get(probe.id, ())
    if breaches:
        return Result(
            probe=probe, outcome=Outcome.BREACHED, reason=breaches[0], evidence=(*breaches, *evidence)
        )
    missing = [told.missing for told in found.values() if told.missing]
    told_notes = (note for told in found.values() for note in told.notes)
    notes = tuple(dict.fromkeys((*missing, *told_notes, *witness.notes.get(probe.id, ()))))
    if missing and len(missing) == len(found):
        return Result(probe=probe, outcome=Outcome.NOT_APPLICABLE, reason=missing[0], notes=notes[1:])
    found = {name: told for name, told in found.items() if not told.missing}
    failures = [f"{name}: nothing was told" for name in absent]
    failures += [
        f"{name}: {one.what}: {one.got}"
        for name, told in found.items()
        for one in told.controls
        if not one.succeeded
    ]
    failures += [f"{name}: no control was tried" for name, told in found.items() if not told.controls]
    failures += witness.failures.get(probe.id, ())
    if failures:
        return Result(
            probe=probe,
            outcome=Outcome.CONTROL_FAILED,
            reason=failures[0],
            evidence=(*failures, *evidence),
            notes=notes,
        )
    count = sum(len(told.attacks) for told in found.values())
    return Result(
        probe=probe,
        outcome=Outcome.HELD,
        reason=f"{count} attacks" if count else "seen from outside",
        evidence=evidence,
        notes=notes,
    )


def _later(
    probe: Probe, told: Mapping[str, Mapping[str, Told]], witness: Witness, passes: Sequence[str]
) -> Result:
    if EXEC not in passes:
        return Result(probe=probe, outcome=Outcome.NOT_APPLICABLE, reason="no later process was tried")
    found = {name: one for name, one in told.get(EXEC, {}).items() if name in LATER}
    missing = [name for name in LATER if name not in found]
    joined = Told(
        attacks=tuple(one for each in found.values() for one in each.attacks),
        controls=tuple(one for each in found.values() for one in each.controls),
        notes=tuple(one for each in found.values() for one in each.notes),
    )
    result = _judge(probe, {EXEC: joined}, witness, (EXEC,))
    if missing and result.outcome is not Outcome.BREACHED:
        reason = f"the later process did not tell of {', '.join(missing)}"
        return replace(result, outcome=Outcome.CONTROL_FAILED, reason=reason)
    return result


def marks(seen: bytes, ids: Sequence[str]) -> frozenset[str]:
    """Which marks stand in what the witnesses outside received."""
    return frozenset(
        f"{kind}-{name}"
        for name in ids
        for kind in ("attack", "control")
        if re.search(rf"{kind}-{re.escape(name)}(?![0-9])".encode(), seen)
    )


def exit_code(results: Sequence[Result]) -> int:
    """0: all that was tried held. 1: something was breached. 3: nothing was, but a control failed."""
    outcomes = {result.outcome for result in results}
    if Outcome.BREACHED in outcomes:
        return 1
    return 3 if Outcome.CONTROL_FAILED in outcomes or not results else 0


def _lines(found: Mapping[str, Told]) -> list[str]:
    return [
        f"{name}: {kind} {one.what!r}: {'succeeded' if one.succeeded else 'refused'} ({one.got})"
        for name, told in found.items()
        for kind, attempts in (("control", told.controls), ("attack", told.attacks))
        for one in attempts
    ]


def _attempt(data: dict[str, object]) -> Attempt:
    return Attempt(what=_text(data["what"]), succeeded=data["succeeded"] is not False, got=_text(data["got"]))


def _text(value: object) -> str:
    """Printable, and not long: it goes to a terminal and into a report."""
    text = str(value)[:_TEXT_LIMIT_CHARACTERS]
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
