"""What the host sees of a sandbox under attack: its processes, their memory, the workspace, the audit log.

Rule 1: read from outside, through /proc and files of ours: nothing in the sandbox can answer in their place.
Rule 2: what could not be looked at is said, as a failed control: it is not taken for clean.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from cloister.audit.read import Reader
from cloister.runtimes import invariants
from cloister.sandbox import registry
from cloister.session import stop
from cloister.system import files
from cloister.values import dataclass, field
from cloister.verify.overlay import NAMES
from cloister.verify.place import Place
from cloister.verify.probes import BY_ID

_REGION_LIMIT_BYTES = 256 << 20
_INVISIBLE = "not looked at from outside: the engine's processes are not seen on this host"
ALLOWED_PATH, REFUSED_PATH = "/control-AUDIT-1", "/refused-AUDIT-1"

Found = dict[str, tuple[str, ...]]


def record_of(place: Place) -> registry.Record | None:
    """The record of the sandbox that runs there."""
    return next(iter(registry.records(place.project.runs)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the host saw of some probes' claims: breaches, looks that showed nothing, and what it could not look at."""

    breaches: Found = field(default_factory=dict)
    failures: Found = field(default_factory=dict)
    notes: Found = field(default_factory=dict)

    def __add__(self, other: Seen) -> Seen:
        return Seen(
            breaches=joined(self.breaches, other.breaches),
            failures=joined(self.failures, other.failures),
            notes=joined(self.notes, other.notes),
        )


def joined(*parts: Found) -> Found:
    """All of them, each text once."""
    names = {name for part in parts for name in part}
    return {name: tuple(dict.fromkeys(one for part in parts for one in part.get(name, ()))) for name in names}


def confinement(init: registry.Process | None) -> Seen:
    """What is wrong with any process of the sandbox, its pid 1 aside, which is the runtime's own (K-1)."""
    if init is None:
        return Seen(notes={"K-1": (_INVISIBLE,)})
    wrong, looked = [], 0
    for pid in _others(init):
        try:
            with (
                open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as status,
                open(f"/proc/{pid}/net/dev", encoding="utf-8", errors="replace") as interfaces,
            ):
                texts = status.read(), interfaces.read()
        except OSError:
            continue  # it has ended
        looked += 1
        wrong += [f"seen from outside, process {pid}: {one}" for one in invariants.breaches(*texts)]
    if not looked:
        return Seen(failures={"K-1": ("from outside no process of the sandbox was in sight",)})
    return Seen(breaches={"K-1": tuple(wrong)})


def memory(init: registry.Process | None, *, value: str, known: str) -> Seen:
    """Whether the value stands in the memory of a process of the sandbox, where the search finds `known` (SECRET-1)."""
    if init is None:
        return Seen(notes={"SECRET-1": (_INVISIBLE,)})
    leaks, finds, refusals, looked = [], False, [], 0
    for pid in _others(init):
        try:
            found = _in_memory(pid, (value.encode(), known.encode()))
        except PermissionError as error:
            refusals.append(f"process {pid}: {error.strerror}")
            continue
        except OSError:
            continue  # it has ended
        looked += 1
        finds = finds or found[1]
        leaks += [f"seen from outside: its value is in the memory of process {pid}"] if found[0] else []
    if leaks or finds:
        return Seen(breaches={"SECRET-1": tuple(leaks)})
    if refusals and not looked:
        return Seen(notes={"SECRET-1": (f"its memory was not searched from outside: {refusals[0]}",)})
    return Seen(failures={"SECRET-1": ("the search of memory from outside did not find what was put there",)})


def planted(before: Mapping[str, str | None], place: Place) -> tuple[str, ...]:
    """What stands now where nothing may be planted, and did not before."""
    now = place.planted()
    return tuple(f"seen from outside: {path} was written" for path in before if now[path] != before[path])


def unlogged(place: Place) -> tuple[str, ...]:
    """Which of the two requests of AUDIT-1 the log does not tell of."""
    reader = Reader(place.project.audit)
    try:
        seen = {(entry.event.kind, entry.event.path) for entry in reader.poll()}
    finally:
        reader.close()
    wanted = {("request", ALLOWED_PATH): "allowed", ("refuse", REFUSED_PATH): "refused"}
    return tuple(
        f"the audit log does not tell of what was {what}" for key, what in wanted.items() if key not in seen
    )


def strayed(arrived: Iterable[tuple[str, bytes]], place: Place) -> Found:
    """Where the canary credential's value, or its placeholder, came to a name that it is not bound to; by probe."""
    found: dict[str, tuple[str, ...]] = {}
    for name, data in arrived:
        for what, text in (("value", place.secret), ("placeholder", place.placeholder)):
            if name != NAMES["bound"] and text.encode() in data:
                probe = re.search(rb"(?:attack|control|cut)-([A-Z]+-[0-9]+)", data)
                key = probe[1].decode() if probe is not None and probe[1].decode() in BY_ID else "SECRET-1"
                told = f"seen from outside: its {what} came to {name or 'a listener'}"
                found[key] = (*found.get(key, ()), told)
    return found


def in_own_files(place: Place) -> tuple[str, ...]:
    """Where among what a sandbox leaves behind the canary credential's value stands."""
    found = []
    for top in (os.path.dirname(place.project.audit), place.project.home, place.project.workspace):
        for directory, _, names in os.walk(top):
            for name in names:
                path = f"{directory}/{name}"
                with suppress(OSError):
                    if place.secret.encode() in (files.read(path) or b""):
                        found.append(f"seen from outside: its value is in {path}")
    return tuple(found)


def _others(init: registry.Process) -> Iterator[int]:
    return (pid for pid in stop.inside(init) if pid != init.pid)


def _in_memory(pid: int, values: tuple[bytes, bytes]) -> tuple[bool, bool]:
    """Which of them stand in a process's writable memory. OSError if it cannot be read."""
    found = [False, False]
    with (
        open(f"/proc/{pid}/maps", encoding="ascii", errors="replace") as maps,
        open(f"/proc/{pid}/mem", "rb", 0) as memory,
    ):
        for line in maps:
            start, end = (int(text, 16) for text in line.split(" ", 1)[0].split("-"))
            if " rw" not in line or end - start > _REGION_LIMIT_BYTES:
                continue
            with suppress(OSError, OverflowError, ValueError):
                memory.seek(start)
                data = memory.read(end - start)
                found = [known or value in data for known, value in zip(found, values, strict=True)]
    return found[0], found[1]
