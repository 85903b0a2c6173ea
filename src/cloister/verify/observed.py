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
from cloister.verify.overlay import NAMES
from cloister.verify.place import Place
from cloister.verify.probes import BY_ID

_REGION_LIMIT_BYTES = 256 << 20
ALLOWED_PATH, REFUSED_PATH = "/control-AUDIT-1", "/refused-AUDIT-1"

Found = dict[str, tuple[str, ...]]


def record_of(place: Place) -> registry.Record | None:
    """The record of the sandbox that runs there."""
    return next(iter(registry.records(place.project.runs)), None)


def confinement(init: registry.Process) -> tuple[str, ...]:
    """What is wrong with any process of the sandbox, its pid 1 aside, which is the runtime's own."""
    wrong = []
    for pid in _others(init):
        try:
            with (
                open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as status,
                open(f"/proc/{pid}/net/dev", encoding="utf-8", errors="replace") as interfaces,
            ):
                texts = status.read(), interfaces.read()
        except OSError:
            continue  # it has ended
        wrong += [f"seen from outside, process {pid}: {one}" for one in invariants.breaches(*texts)]
    return tuple(wrong)


def count(init: registry.Process) -> int:
    """How many processes could be looked at."""
    return len(list(_others(init)))


def holds(init: registry.Process, value: str) -> tuple[str, ...]:
    """The processes of the sandbox in whose memory the value stands."""
    return tuple(f"process {pid}" for pid in _others(init) if _in_memory(pid, value.encode()))


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


def _in_memory(pid: int, value: bytes) -> bool:
    try:
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
                    if value in memory.read(end - start):
                        return True
    except OSError:
        return False
    return False
