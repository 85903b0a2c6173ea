"""Run an agent in the sandbox and, in the middle of its first answer, look for a key in all that the sandbox holds.

Usage: agent_watch.py REVERSED_KEY PLACEHOLDER_VARIABLE COMMAND…. Prints the agent's lines as they come, and one line
{"watch": {…}} after the first text of an answer. It runs in the sandbox, with nothing but the standard library.

Rule 1: the key comes in reversed and only this process, which it leaves out of the search, ever turns it round.
Rule 2: it looks for the placeholder in the same way: where that is not found the search proves nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_PLACES = ("/run", "/tmp", "/var/tmp", "/etc", "/dev/shm")
_PART_BYTES = 1 << 24
_SKIPPED_MAPPINGS = ("[vvar]", "[vsyscall]", "[vvar_vclock]")


def main() -> int:
    key = sys.argv[1][::-1].encode()
    placeholder = os.environ[sys.argv[2]].encode()
    agent = subprocess.Popen(sys.argv[3:], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    watched = False
    for line in agent.stdout or ():
        sys.stdout.buffer.write(line)
        sys.stdout.flush()
        if b"text_delta" in line and not watched:
            watched = True
            print(json.dumps({"watch": watch(key, placeholder)}), flush=True)
    return agent.wait()


def watch(key: bytes, placeholder: bytes) -> dict[str, object]:
    """Where the key is, where the placeholder is, what could not be read, and how much was."""
    found: dict[bytes, list[str]] = {key: [], placeholder: []}
    unreadable: list[str] = []
    size = 0
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        if pid == os.getpid():
            continue
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
        except FileNotFoundError:
            continue
        try:
            for place, part in process(pid):
                size += len(part)
                for needle, places in found.items():
                    if needle in part:
                        places.append(f"{name} {place}")
        except (PermissionError, ProcessLookupError):
            unreadable.append(name)
    for root in (os.environ["HOME"], str(Path.cwd()), *_PLACES):
        for path, data in files(root):
            for needle, places in found.items():
                if needle in data:
                    places.append(path)
    return {
        "key": found[key],
        "placeholder": found[placeholder],
        "unreadable": unreadable,
        "memory_bytes": size,
    }


def process(pid: int) -> Iterator[tuple[str, bytes]]:
    """The environment, the arguments and every readable mapping of a process."""
    for name in ("environ", "cmdline"):
        yield name, Path(f"/proc/{pid}/{name}").read_bytes()
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in maps:
            span, rights, *rest = line.split()
            if not rights.startswith("r") or rest[-1] in _SKIPPED_MAPPINGS:
                continue
            start, end = (int(text, 16) for text in span.split("-"))
            yield from mapping(memory.fileno(), start, end)


def mapping(memory: int, start: int, end: int) -> Iterator[tuple[str, bytes]]:
    """A mapping part by part, with an overlap, so that nothing hides on a border. A page that is not there ends it."""
    place = start
    while place < end:
        try:
            part = os.pread(memory, min(_PART_BYTES, end - place), place)
        except OSError:
            return
        if not part:
            return
        yield f"{place:x}", part
        place += len(part) if place + len(part) >= end or len(part) <= 4096 else len(part) - 256


def files(root: str) -> Iterator[tuple[str, bytes]]:
    for directory, _, names in os.walk(root):
        for name in names:
            path = Path(directory, name)
            try:
                if path.is_file() and not path.is_symlink():
                    yield str(path), path.read_bytes()
            except OSError:
                continue


if __name__ == "__main__":
    sys.exit(main())
