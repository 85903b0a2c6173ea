"""Judge what a peer's sandbox did: held, breached, not offered, or a control that failed.

Rule 1: verify/verdict.py judges, by the same rules as for cloister's own: a breach that anybody has seen is one, and
        "held" needs a control that succeeded, and that the origin has seen.
Rule 2: "not offered" is data (peers.toml), for what a peer does not have. All else is tried.
Rule 3: where cloister's claim is of placeholders (BY_VALUE), a peer is judged by what matters: whether the *value* went
        where it must not. A placeholder that is passed on as it is, is no breach.
Rule 4: an attack that passes and is no breach of this peer (no_breach), and a control that it makes impossible
        (no_control), are data as well, with the reason, which is shown. Such an attack takes its mark outside with it
        only where it is the probe's sole one that passed.
Rule 5: no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from cloister.values import replace
from cloister.verify import verdict
from cloister.verify.overlay import NAMES
from cloister.verify.probes import BY_ID
from cloister.verify.probes import LATER as OF_LATER
from cloister.verify.verdict import EXEC, FIRST, Told, Witness

BY_VALUE = ("ID-5", "ID-6", "ID-11")
LATER, AUDIT, SECRET = "K-7", "AUDIT-1", "SECRET-1"
_MARKED = re.compile(rb"(?:attack|cut)-([A-Z]+-[0-9]+)")
AUDITED = ("/control-AUDIT-1", "/refused-AUDIT-1")


class Finding(Enum):
    HELD = "held"
    BREACHED = "breached"
    NOT_OFFERED = "not offered"
    CONTROL_FAILED = "control failed"
    NOT_RUN = "not run"


_FINDINGS = {
    verdict.Outcome.HELD: Finding.HELD,
    verdict.Outcome.BREACHED: Finding.BREACHED,
    verdict.Outcome.NOT_APPLICABLE: Finding.NOT_OFFERED,
    verdict.Outcome.CONTROL_FAILED: Finding.CONTROL_FAILED,
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One probe against one peer."""

    finding: Finding
    reason: str
    evidence: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # what of it was judged by peers.toml
    passed: int = 0  # attacks, of `tried`; what only the host saw is not among them
    tried: int = 0


@dataclass(frozen=True, kw_only=True)
class Described:
    """A peer as peers.toml has it."""

    title: str
    what: str
    configuration: tuple[str, ...] = ()
    not_offered: Mapping[str, str] = field(default_factory=dict)  # probe → reason
    no_breach: Mapping[tuple[str, str], str] = field(default_factory=dict)  # probe and attack → reason
    no_control: Mapping[tuple[str, str], str] = field(default_factory=dict)  # probe and control → reason


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What the host saw of one peer: what arrived outside, what was planted, the peer's log if it has one."""

    arrived: Sequence[tuple[str, bytes]]  # at which of the origin's names, or ""; what
    secret: str
    planted: tuple[str, ...] = ()
    log: str | None = None
    controls: frozenset[str] = frozenset()  # probes whose control sends a mark
    told: Mapping[str, Mapping[str, Told]] = field(default_factory=dict)  # pass → id → what it said


def judged(names: Sequence[str], about: Described, observed: Observed) -> dict[str, Cell]:
    """A cell for every probe. KeyError for a name that there is not."""
    return {
        name: Cell(finding=Finding.NOT_OFFERED, reason=about.not_offered[name])
        if name in about.not_offered
        else _tried(name, about, observed)
        for name in names
    }


def _tried(name: str, about: Described, observed: Observed) -> Cell:
    which = EXEC if name == LATER else FIRST
    said = observed.told.get(which, {})
    own = [one for one in (OF_LATER if name == LATER else (name,)) if one in said]
    notes = tuple(note for one in own for note in _notes(one, said[one], about))
    witness = _witness(name, observed)
    excused = (
        {one.what for one in said[name].attacks if (name, one.what) in about.no_breach}
        if name in said
        else set()
    )
    if excused and excused == {one.what for one in said[name].attacks if one.succeeded}:
        witness = replace(witness, marks=witness.marks - {f"attack-{name}"})
    weighed = {one: _weighed(one, said[one], about) for one in own}
    result = verdict.judge(BY_ID[name], {which: weighed}, witness, (which,))
    attacks = [one.succeeded for told in weighed.values() for one in told.attacks]
    return Cell(
        finding=_FINDINGS[result.outcome],
        reason=result.reason,
        evidence=result.evidence,
        notes=notes,
        passed=sum(attacks),
        tried=len(attacks),
    )


def _weighed(name: str, told: Told, about: Described) -> Told:
    """What was said, without what is no breach: by Rule 3 every attack of those, by Rule 4 those of the data."""
    return Told(
        attacks=tuple(
            replace(
                one,
                succeeded=one.succeeded and (name, one.what) not in about.no_breach and name not in BY_VALUE,
            )
            for one in told.attacks
        ),
        controls=tuple(
            replace(one, succeeded=one.succeeded or (name, one.what) in about.no_control)
            for one in told.controls
        ),
        missing=told.missing,
    )


def _notes(name: str, told: Told, about: Described) -> Sequence[str]:
    """What Rule 4 changed."""
    passed = [one.what for one in told.attacks if one.succeeded and (name, one.what) in about.no_breach]
    failed = [one.what for one in told.controls if not one.succeeded and (name, one.what) in about.no_control]
    return [
        *(f"{name}: {what!r} passed, and is no breach: {about.no_breach[name, what]}" for what in passed),
        *(f"{name}: {what!r} failed, and had to: {about.no_control[name, what]}" for what in failed),
    ]


def _witness(name: str, observed: Observed) -> Witness:
    seen = b"\n".join(data for _, data in observed.arrived)
    marks = verdict.marks(seen, [name])
    breaches: list[str] = []
    failures: list[str] = []
    if name in observed.controls and f"control-{name}" not in marks:
        failures.append("the origin outside has not seen the control")
    breaches += strayed(observed.arrived, observed.secret).get(name, ())
    if name in BY_VALUE:
        marks -= {f"attack-{name}"}
    if name == "FS-1":
        breaches += observed.planted
    if name == "CFG-1":
        breaches += [one for one in observed.planted if "cloister.toml" in one]
    if name == SECRET and observed.secret.encode() not in seen:
        failures.append("the origin outside has not got the credential")
    if name == AUDIT:
        log = observed.log or ""
        breaches += [f"its log does not tell of {path}" for path in AUDITED if path not in log]
    return Witness(marks=marks, breaches={name: tuple(breaches)}, failures={name: tuple(failures)})


def strayed(arrived: Sequence[tuple[str, bytes]], secret: str) -> dict[str, tuple[str, ...]]:
    """Where the credential's value came to a name that it is not for, by the probe whose request it was."""
    found: dict[str, tuple[str, ...]] = {}
    for name, data in arrived:
        marked = _MARKED.search(data)
        if secret.encode() in data and name != NAMES["bound"] and marked is not None:
            told = f"seen outside: the credential's value came to {name or 'a listener'}"
            found[marked[1].decode()] = (*found.get(marked[1].decode(), ()), told)
    return found
