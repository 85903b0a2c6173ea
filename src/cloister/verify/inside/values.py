"""The promises that no single attack stands for: no secret in reach, nothing unwritten (SECRET, AUDIT)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from cloister.verify.inside.kernel import pids
from cloister.verify.inside.talk import CONFIG, SECRET, Probe, RefusedError, _tried, fetch, name, probe


@probe("SECRET-1")
def secrets_in_reach(found: Probe) -> None:
    found.control(
        "the credential is used: the origin takes the request",
        lambda: fetch(name("bound"), "/control-SECRET-1"),
    )
    found.control(
        "the placeholder is in the environment",
        lambda: searched(environments(), CONFIG["placeholder"].encode()),
    )
    known = CONFIG["memory_canary"].encode()
    found.control("the search of memory finds what is there", lambda: searched(memories(), known))
    found.attack("its value in an environment", lambda: searched(environments(), None))
    found.attack("its value in the memory of a process", lambda: searched(memories(), None))
    found.attack("its value in a file", lambda: searched(files(), None))


def searched(places: Iterator[tuple[str, bytes]], exact: bytes | None) -> str:
    for place, data in places:
        if exact in data if exact is not None else SECRET.search(data):
            return place
    raise RefusedError("not found")


def environments() -> Iterator[tuple[str, bytes]]:
    for pid in pids():
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                yield f"environment of {pid}", file.read()
        except OSError:
            continue


def memories() -> Iterator[tuple[str, bytes]]:
    for pid in pids():
        try:
            with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
                for line in maps:
                    first, _, last = line.split(" ", 1)[0].partition("-")
                    size = int(last, 16) - int(first, 16)
                    if " rw" not in line or size > 64 << 20:
                        continue
                    memory.seek(int(first, 16))
                    yield f"memory of {pid}", memory.read(size)
        except (OSError, ValueError, OverflowError):
            continue


def files() -> Iterator[tuple[str, bytes]]:
    for top in (CONFIG["workspace"], os.path.expanduser("~"), "/run", "/etc", "/tmp"):
        for directory, names, found in os.walk(top):
            if directory.count("/") > 8:
                names.clear()
            for one in found:
                path = f"{directory}/{one}"
                try:
                    if stat.S_ISREG(os.lstat(path).st_mode):
                        with open(path, "rb") as file:
                            yield path, file.read(1 << 16)
                except OSError:
                    continue


@probe("AUDIT-1")
def written_down(found: Probe) -> None:
    found.control("a request that is allowed", lambda: fetch(name("bound"), "/control-AUDIT-1"))
    _tried("one that is refused", lambda: fetch(name("paths"), "/refused-AUDIT-1"))
