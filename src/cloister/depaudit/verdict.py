"""Judge an observation: clean, suspicious or malicious, with the reasons.

Rule 1: no I/O.
Rule 2: a verdict is about what was seen. "clean" says that nothing was; code that waits for another day, or notices
        where it runs, does nothing either.
Rule 3: an install script alone is no reason. What it does is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

from cloister.depaudit import scripts
from cloister.depaudit.canaries import Canary
from cloister.depaudit.observation import Observation, Opened, Sent, Written
from cloister.depaudit.places import Place, odd_program, place

_GRAVE_PLACES = {
    Place.LOGIN: "which runs at the next login",
    Place.HOOK: "which git, an editor or an agent would run or obey",
    Place.CREDENTIALS: "where credentials lie",
}


class Level(IntEnum):
    """How bad. `CLEAN` is also that of a remark."""

    CLEAN = 0
    SUSPICIOUS = 1
    MALICIOUS = 2

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One finding. `who` is the script that did it, as people call it; empty if that cannot be told."""

    level: Level
    text: str
    who: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The worst of the reasons; all of them, the worst first."""

    level: Level
    reasons: tuple[Reason, ...]


def judge(seen: Observation, canaries: Mapping[str, Canary]) -> Verdict:
    """The verdict. `canaries` by name."""
    reasons = tuple(
        dict.fromkeys(
            (
                *_sent(seen, canaries),
                *_opened(seen, canaries),
                *_written(seen),
                *_started(seen),
                *_asked(seen),
                *_dependencies(seen),
            )
        )
    )
    ordered = tuple(sorted(reasons, key=lambda reason: -reason.level))
    return Verdict(level=max((reason.level for reason in ordered), default=Level.CLEAN), reasons=ordered)


def _sent(seen: Observation, canaries: Mapping[str, Canary]) -> Iterator[Reason]:
    for sent in seen.sent:
        yield _of_sent(sent, canaries.get(sent.canary))


def _of_sent(sent: Sent, canary: Canary | None) -> Reason:
    shown = _shown(sent.canary, canary)
    if canary is not None and sent.target in canary.homes:
        text = f"{shown} was on its way to {sent.target}, where the real one is used"
        return Reason(level=Level.SUSPICIOUS, text=text)
    return Reason(level=Level.MALICIOUS, text=f"{shown} was on its way to {sent.target}, {sent.how}")


def _opened(seen: Observation, canaries: Mapping[str, Canary]) -> Iterator[Reason]:
    for opened in seen.opened:
        canary = canaries.get(opened.name)
        if canary is not None:
            reason = _of_opened(seen, opened, canary)
            if reason is not None:
                yield reason


def _of_opened(seen: Observation, opened: Opened, canary: Canary) -> Reason | None:
    """A script has no business there; the installer itself opens its own settings."""
    who = _who(seen, opened.script)
    program = scripts.program(opened.program)
    by = f" with {program}" if program else ""
    if opened.script is not None:
        level = Level.MALICIOUS if canary.private else Level.SUSPICIOUS
        return Reason(level=level, text=f"opened {canary.path}{by}", who=who)
    if program in canary.readers or (not program and canary.readers):
        return None
    return Reason(level=Level.SUSPICIOUS, text=f"{program or 'a program'} opened {canary.path}")


def _written(seen: Observation) -> Iterator[Reason]:
    baited = {opened.name: opened for opened in seen.opened if opened.writing}
    for written in seen.written:
        where = place(written.path)
        opened = baited.get(written.path)
        who = _who(seen, written.script if opened is None else opened.script)
        text = f"{_VERBS[written.how]} {written.path}"
        if where in _GRAVE_PLACES:
            yield Reason(level=Level.MALICIOUS, text=f"{text}, {_GRAVE_PLACES[where]}", who=who)
        elif where is Place.OTHER and seen.scripts and not _is_ours(written):
            yield Reason(level=Level.SUSPICIOUS, text=f"{text}, outside of the packages", who=who)


_VERBS = {"new": "wrote", "changed": "changed", "removed": "removed", "passing": "wrote, and removed again,"}


def _is_ours(written: Written) -> bool:
    """What it looks like when the command itself, and not a script, made it."""
    return written.script is None and written.how == "new" and not written.executable


def _started(seen: Observation) -> Iterator[Reason]:
    for process in seen.processes:
        odd = odd_program(process.path)
        if odd:
            yield Reason(
                level=Level.SUSPICIOUS, text=f"started {process.path}: {odd}", who=_who(seen, process.script)
            )


def _asked(seen: Observation) -> Iterator[Reason]:
    stolen = {sent.target for sent in seen.sent}
    for asked in seen.asked:
        if asked.allowed:
            continue
        what = f" ({asked.requests[0]})" if asked.requests else ""
        if asked.host not in stolen:
            yield Reason(
                level=Level.SUSPICIOUS, text=f"asked for {asked.host}{what}, which is refused: {asked.reason}"
            )


def _dependencies(seen: Observation) -> Iterator[Reason]:
    for one in seen.dependencies:
        text = f"{one.file}: {one.package} comes from {one.source}"
        if one.cleartext:
            yield Reason(level=Level.SUSPICIOUS, text=f"{text}, over a connection that anybody may change")
        elif one.kind == "index":
            yield Reason(level=Level.SUSPICIOUS, text=f"{text}, another index than the public one")
        elif not one.pinned:
            yield Reason(level=Level.SUSPICIOUS, text=f"{text}, pinned by no commit or digest")
        else:
            yield Reason(level=Level.CLEAN, text=f"{text}, not from a registry")


def _who(seen: Observation, script: int | None) -> str:
    return "" if script is None else seen.scripts[script].title


def _shown(name: str, canary: Canary | None) -> str:
    return f"{canary.path} ({name})" if canary is not None and canary.path else name
