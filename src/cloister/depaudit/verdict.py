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
from cloister.depaudit.observation import Observation, Opened, Written
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
    """One reason for each place and way, with all that was on its way there."""
    together: dict[tuple[Level, str], list[str]] = {}
    for sent in seen.sent:
        canary = canaries.get(sent.canary)
        if canary is not None and sent.target in canary.homes:
            key = Level.SUSPICIOUS, f"{sent.target}, where the real one is used"
        else:
            key = Level.MALICIOUS, f"{sent.target}, {sent.how}"
        together.setdefault(key, []).append(canary.path or canary.name if canary is not None else sent.canary)
    for (level, where), names in together.items():
        yield Reason(level=level, text=f"{', '.join(names)} on the way to {where}")


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
    program, shown = scripts.program(opened.program), scripts.shown(opened.program)
    by = f" with {shown}" if shown else ""
    level = Level.MALICIOUS if canary.private else Level.SUSPICIOUS
    if opened.script is not None:
        return Reason(level=level, text=f"opened {canary.path}{by}", who=who)
    if program in canary.readers or (not program and not canary.private):
        return None
    return Reason(level=level, text=f"{shown or 'a program that could not be caught'} opened {canary.path}")


def _written(seen: Observation) -> Iterator[Reason]:
    baited: dict[str, Opened] = {}  # by whom it was opened to be written: the first script, if there is one
    for opened in sorted(seen.opened, key=lambda one: one.script is None):
        if opened.writing:
            baited.setdefault(opened.name, opened)
    for written in seen.written:
        where = place(written.path)
        script = baited[written.path].script if written.path in baited else written.script
        who = _who(seen, script)
        text = f"{_VERBS[written.how]} {written.path}"
        if where in _GRAVE_PLACES:
            own = script is not None and seen.scripts[script].own and where is Place.HOOK
            level = Level.SUSPICIOUS if own else Level.MALICIOUS  # as husky does, if the project asks for it
            yield Reason(level=level, text=f"{text}, {_GRAVE_PLACES[where]}", who=who)
        elif where is Place.OTHER and seen.scripts and not _is_ours(written):
            yield Reason(level=Level.SUSPICIOUS, text=f"{text}, outside of the packages", who=who)


_VERBS = {"new": "wrote", "changed": "changed", "removed": "removed", "passing": "wrote, and removed again,"}


def _is_ours(written: Written) -> bool:
    """What it looks like when the command itself, and not a script, made it."""
    return written.script is None and written.how == "new" and not written.executable


def _started(seen: Observation) -> Iterator[Reason]:
    for process in seen.processes:
        odd = odd_program(process.path)
        if odd and (process.script is not None or not process.path.startswith("/tmp/")):  # noqa: S108
            yield Reason(
                level=Level.SUSPICIOUS, text=f"started {process.path}: {odd}", who=_who(seen, process.script)
            )


def _asked(seen: Observation) -> Iterator[Reason]:
    stolen = tuple(sent.target.removeprefix("*") for sent in seen.sent)
    for asked in seen.asked:
        what = f" ({asked.requests[0]})" if asked.requests else ""
        if asked.how == "refused" and not asked.host.endswith(stolen):
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
