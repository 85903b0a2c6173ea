"""The programs that run in the sandbox for the adapter, and what their ends mean. A judge: no I/O.

Rule 1: their own tools are found in the system's directories only, where the agent cannot put others in their place.
Rule 2: what they print is untrusted: it becomes contents or words of an error, never a decision. An exit code of theirs
        is believed for that one file, which the agent could as well have changed.
"""

from __future__ import annotations

import errno
import os

_PATH = "PATH=/usr/bin:/bin:/usr/local/bin; export PATH LC_ALL=C; "
_MISSING, _DIRECTORY, _DENIED = 101, 102, 103
_ERRNO = {_MISSING: errno.ENOENT, _DIRECTORY: errno.EISDIR, _DENIED: errno.EACCES}
_REFUSED = ("Permission denied", "Read-only file system", "Operation not permitted")

# FILE BYTES: at most so many of its first bytes.
_READ = (
    f'{_PATH} [ -e "$1" ] || exit {_MISSING}; [ ! -d "$1" ] || exit {_DIRECTORY}; [ -r "$1" ] || exit {_DENIED}; '
    'exec head -c "$2" -- "$1"'
)
# FILE: from standard input, with its directories.
_WRITE = (
    f'{_PATH} [ ! -d "$1" ] || exit {_DIRECTORY}; [ ! -e "$1" ] || [ -w "$1" ] || exit {_DENIED}; '
    'mkdir -p -- "$(dirname -- "$1")" && exec cat > "$1"'
)
# MARK: end every process that has it in its environment, and those that these have started meanwhile.
_END = (
    f"{_PATH} again=1; while [ $again = 1 ]; do again=0; for each in /proc/[0-9]*; do "
    'if grep -qsF -e "$1" "$each/environ"; then kill -KILL "${each#/proc/}" 2>/dev/null && again=1; fi; done; done'
)
MARK = "CLOISTER_EXEC"


def reading(file: str, *, most_bytes: int) -> list[str]:
    """Prints the file, or its first so many bytes."""
    return ["/bin/sh", "-c", _READ, "sh", file, str(most_bytes)]


def writing(file: str) -> list[str]:
    """Writes its standard input there."""
    return ["/bin/sh", "-c", _WRITE, "sh", file]


def ending(mark: str) -> list[str]:
    """Ends all that a command with this mark has started, in other process groups too."""
    return ["/bin/sh", "-c", _END, "sh", f"{MARK}={mark}"]


def failure(code: int, untrusted_words: str, file: str) -> OSError | None:
    """Why a file could not be read or written; None if it could."""
    if code == 0:
        return None
    number = _ERRNO.get(code)
    if number is None and any(words in untrusted_words for words in _REFUSED):
        number = errno.EACCES
    if number is None:
        return OSError(errno.EIO, untrusted_words.strip() or f"exit code {code}", file)
    return OSError(number, os.strerror(number).lower(), file)
