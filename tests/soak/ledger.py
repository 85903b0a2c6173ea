"""Judge one soak: what clients tried, what origins saw and what the audit log says must be the same story.

Rule 1: no I/O. Everything comes as values, and what is wrong goes out as sentences.
Rule 2: only what was in hand when a gateway or a session was killed may lack its line: a line is written when a request
        has ended. Nothing else is excused.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.soak.inside import places
from tests.soak.lives import Lived

Row = Mapping[str, Any]  # a line of JSON: a client's note, an origin's row, or an audit event
_BREAK = frozenset({"cut", "stall", "half-open"})  # what must fail
_REFUSED = frozenset({"refused-method", "misplaced", "refused-host", "refused-name", "dead", "lost"})
_UNSEEN = frozenset({"refused-method", "misplaced", "refused-host"})
_READ = frozenset({places.API, places.FAULT, places.RULE, places.SINK, places.PLAIN, places.CHAT})
_ENDED_BEFORE_S = 0.5  # a trial that ended so long before a kill has its line
# A client that breaks off leaves its request in hand until the origin says something more: `origins._STALL_S`, and a slow machine.
_BROKE_OFF_BEFORE_S = 10.0
_KINDS = frozenset(
    {
        "start",
        "end",
        "dns",
        "connect",
        "request",
        "publish",
        "refuse",
        "alarm",
        "confirm",
        "sign",
        "quarantine",
    }
)


@dataclass(frozen=True, kw_only=True)
class Story:
    """All that is known. `outages`: when the origins were away; `published`: exchanges by the published port that went well."""

    lives: Sequence[Lived]
    notes: Sequence[Row]
    seen: Sequence[Row]
    audit: Sequence[Row]
    outages: Sequence[tuple[float, float]]
    published: int


@dataclass(kw_only=True)
class Trial:
    """One trial's notes, put together."""

    life: Lived
    kind: str = ""
    began: float = 0.0
    ended: float | None = None
    outcome: str = ""
    detail: str = ""
    by_gateway: bool = False

    @property
    def in_hand_at_kill(self) -> bool:
        if self.life.killed_at is None:
            return False
        broke_off = self.outcome in ("aborted", "failed")
        before_s = _BROKE_OFF_BEFORE_S if broke_off else _ENDED_BEFORE_S
        return self.ended is None or self.ended > self.life.killed_at - before_s


@dataclass(kw_only=True)
class _Book:
    """The story, by trial and by sandbox."""

    trials: dict[str, Trial]
    lines: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    paths: set[tuple[str, str]] = field(default_factory=set)  # sandbox and path, of every request and refusal
    hosts: set[tuple[str, str]] = field(default_factory=set)  # sandbox and host, of every refusal


def trials(story: Story) -> dict[str, Trial]:
    """By the trial's name."""
    lives = {life.name: life for life in story.lives}
    found: dict[str, Trial] = {}
    for note in story.notes:
        name = note["trial"]
        trial = found.setdefault(name, Trial(life=lives[name.partition("-")[0]]))
        trial.kind = note.get("kind", trial.kind)
        trial.began = note.get("began", trial.began)
        trial.ended = note.get("ended", trial.ended)
        trial.outcome = note.get("outcome", trial.outcome)
        trial.detail = note.get("detail", trial.detail)
        trial.by_gateway = note.get("by_gateway", trial.by_gateway)
    return found


def wrong(story: Story) -> Iterator[str]:
    """Everything that does not fit."""
    book = _Book(trials=trials(story))
    for event in story.audit:
        book.lines[event.get("sandbox", "")].append(event)
        if event.get("event") in ("request", "refuse"):
            book.paths.add((event["sandbox"], event.get("path", "")))
        if event.get("event") == "refuse":
            book.hosts.add((event["sandbox"], event.get("host", "")))
    yield from _outcomes(book, story)
    yield from _seen(book, story)
    yield from _refusals(book)
    yield from _lines(book, story)
    yield from _counts(book, story)


def _outcomes(book: _Book, story: Story) -> Iterator[str]:
    for name, trial in book.trials.items():
        if trial.ended is None:
            if trial.life.killed_at is None:
                yield f"{name} ({trial.kind}) never ended, though nothing was killed"
            continue
        good = trial.outcome in ("whole", "aborted", "refused")
        if trial.kind in _BREAK:
            good = trial.outcome == "failed"
        elif trial.kind in _REFUSED:
            good = trial.outcome == "refused"
        away = any(trial.began < end and trial.ended > start for start, end in story.outages)
        if not good and not (trial.outcome == "failed" and (away or trial.in_hand_at_kill)):
            yield f"{name} ({trial.kind}): {trial.outcome}: {trial.detail}"


def _seen(book: _Book, story: Story) -> Iterator[str]:
    """What the origins saw was granted, and has its line."""
    if not any(row["credential"] for row in story.seen):
        yield "control: no origin ever saw the credential that is bound to it"
    for row in story.seen:
        if row["leaked"]:
            yield f"a credential arrived where it is not bound: {row}"
        if row["origin"] == places.EVIL:
            yield f"something arrived at a host that no rule grants: {row}"
        trial = book.trials.get(row["trial"])
        if trial is None:
            if row["origin"] not in (places.HALF, places.LINE, places.GIT, places.CHAT):
                yield f"nobody has tried what an origin saw: {row}"
            continue
        if trial.kind in _UNSEEN:
            yield f"an origin saw what was to be refused: {row}"
        line = (trial.life.sandbox, row["path"].partition("?")[0])
        if row["origin"] in _READ and line not in book.paths and not trial.in_hand_at_kill:
            yield f"an origin saw a request that has no line: {row}, {trial}"


def _refusals(book: _Book) -> Iterator[str]:
    """What the client was refused has its line."""
    trials_of_paths = {(sandbox, part) for sandbox, path in book.paths for part in path.split("/")[2:3]}
    labels = {(sandbox, host.split(".")[0]) for sandbox, host in book.hosts}
    for name, trial in book.trials.items():
        if trial.outcome != "refused" and not trial.by_gateway:
            continue
        sandbox = trial.life.sandbox
        if trial.kind == "refused-name":
            has_line = (sandbox, trial.detail) in book.hosts
        elif trial.kind == "refused-host":
            has_line = (sandbox, name) in labels
        elif trial.kind in (
            "idle",
            "dead",
            "lost",
            "abort-download",
            "abort-upload",
        ) or trial.kind.startswith("spliced"):
            has_line = True  # counted below, by host: nothing names the trial
        else:
            has_line = (sandbox, name) in trials_of_paths
        if not has_line and not trial.in_hand_at_kill:
            yield f"{name} ({trial.kind}) was refused without a line"


def _lines(book: _Book, story: Story) -> Iterator[str]:
    """Each sandbox's lines, by themselves."""
    for sandbox, lines in book.lines.items():
        kinds = Counter(line.get("event") for line in lines)
        # A session that was killed before it wrote its start, or after its end, is found dead all the same; again, if
        # the command that found it was killed as well.
        dead = sum(line.get("reason") == "the session was killed" for line in lines)
        ends = kinds["end"] - dead
        if kinds["start"] > 1 or ends > 1 or ends + dead == 0 or (ends and not kinds["start"]):
            victims = [life.victim for life in story.lives if life.sandbox == sandbox]
            pair = [line for line in lines if line.get("event") in ("start", "end")]
            yield f"sandbox {sandbox} ({victims}) has not one start and one end: {pair}"
        for line in lines:
            if line.get("event") not in _KINDS or "time" not in line:
                yield f"an odd line: {line}"
            if "internal error" in line.get("reason", ""):
                yield f"an internal error: {line}"
            if "not written one by one" in line.get("reason", ""):
                yield f"more lines than are written one by one: this soak cannot be judged: {line}"
    for life in story.lives:
        if life.sandbox and life.sandbox not in book.lines:
            yield f"sandbox {life.sandbox} has no line at all"


def _counts(book: _Book, story: Story) -> Iterator[str]:
    """Where a line does not name the trial, there must be as many."""
    allowance: Counter[str] = Counter()
    for life in story.lives:
        if life.killed_at is not None:
            allowance[life.sandbox] += life.lanes * 4  # of git each makes some requests at once
    trials_at: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in story.seen:
        trial = book.trials.get(row["trial"])
        if trial is not None and row["origin"] in (places.SPLICE, places.LINE):
            trials_at[(trial.life.sandbox, row["origin"])].add(row["trial"])
    unreachable = {"dead": places.DEAD, "lost": places.LOST}
    for name, trial in book.trials.items():
        if trial.kind in unreachable and trial.outcome == "refused":
            trials_at[(trial.life.sandbox, unreachable[trial.kind])].add(name)
    for (sandbox, host), names in trials_at.items():
        kinds = ("connect",) if host in (places.SPLICE, places.LINE) else ("refuse", "request")
        lines = sum(line["event"] in kinds and line.get("host") == host for line in book.lines[sandbox])
        if lines + allowance[sandbox] < len(names):
            yield f"{host} was reached or refused {len(names)} times in {sandbox}, and has {lines} lines"
    written = sum(event.get("event") == "publish" for event in story.audit)
    if written < story.published:
        yield f"{story.published} connections by the published port, and {written} lines"
