"""Read what the walk of a workspace (scan.py) must know of a file or directory that the sandbox may have written.

Rule 1: bounded, and nothing hangs: a FIFO, a device and an endless file are read as what they hold at once.
Rule 2: what cannot be read holds nothing; what that means is the caller's to say.
"""

from __future__ import annotations

import os

from cloister.sandbox import gitconfig

START_BYTES = 1 << 16
_LIMIT_BYTES = 1 << 22


def read(path: str, limit_bytes: int = _LIMIT_BYTES) -> bytes:
    """Its first bytes; empty if it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            return file.read(limit_bytes) or b""
    except OSError:
        return b""


def start(path: str) -> bytes:
    """As much as tells what kind of file it is."""
    return read(path, START_BYTES)


def is_absent_or_empty(path: str) -> bool:
    """Whether there is no such name, or an empty directory."""
    try:
        with os.scandir(path) as entries:
            return next(entries, None) is None
    except FileNotFoundError:
        return True
    except OSError:
        return False


def global_hooks(home: str) -> list[str]:
    """Where the user's git looks for hooks in every repository: the relative ones."""
    return [
        entry.value
        for path in (f"{home}/.gitconfig", f"{home}/.config/git/config")
        for entry in gitconfig.entries(read(path).decode(errors="replace"))
        if (entry.section, entry.key) == ("core", "hookspath") and not entry.value.startswith("/")
    ]
