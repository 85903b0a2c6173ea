"""What the supervisor of a sandbox that stays has said: it has no terminal, so it says it to its log.

Rule 1: a notice begins with its time; any other line is of a program that it started, such as bubblewrap.
Rule 2: a log is read from where it ended before, and bounded.
"""

from __future__ import annotations

import os
import re
import time

_LIMIT_BYTES = 1 << 18
_STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ")


def stamped(notice: str) -> str:
    """The line of a notice."""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {notice}\n"


def size(log: str) -> int:
    """How much has been said until now, in bytes."""
    try:
        return os.stat(log).st_size
    except OSError:
        return 0


def notices(log: str, since: int) -> list[str]:
    """The notices that came after the first `since` bytes."""
    return [line[match.end() :] for line in _lines(log, since) if (match := _STAMP.match(line))]


def of_others(log: str) -> list[str]:
    """What programs said."""
    return [line for line in _lines(log, 0) if line and not _STAMP.match(line)]


def _lines(log: str, since: int) -> list[str]:
    try:
        with open(log, "rb") as file:
            file.seek(since)
            return file.read(_LIMIT_BYTES).decode(errors="backslashreplace").split("\n")[:-1]
    except OSError:
        return []
