"""A pool of kernel pipes for `splice.py`.

Rule 1: a pipe is held only while bytes are in it, so ten thousand idle connections hold none.
Rule 2: bounded, and never a failure: without a pipe the caller copies through user space instead.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

PIPE_BYTES = 1 << 20  # the usual fs.pipe-max-size; the kernel refuses more to an ordinary user
PIPES_LIMIT = 32  # two descriptors each, and 32 MiB of the user's 64 MiB soft limit on pipe pages

Pipe = tuple[int, int]  # (read end, write end)


class PipePool:
    """Pipes that are empty. `take` and `give`; a pipe that may hold bytes goes to `discard`."""

    def __init__(self, limit: int = PIPES_LIMIT) -> None:
        self._free: list[Pipe] = []
        self._left = limit
        self._enabled = True

    def take(self) -> Pipe | None:
        """An empty pipe, or None if there is none to be had now."""
        if not self._enabled:
            return None
        if self._free:
            return self._free.pop()
        if self._left <= 0:
            return None
        try:
            pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        with contextlib.suppress(OSError):  # over the user's limit: it keeps the 64 KiB that it has
            fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._left -= 1
        return pipe

    def disable(self) -> None:
        """Hand out no more pipes: they are of no use here."""
        self._enabled = False

    def give(self, pipe: Pipe) -> None:
        """Take back an empty pipe."""
        self._free.append(pipe)

    def discard(self, pipe: Pipe) -> None:
        """Close a pipe, whatever is in it."""
        os.close(pipe[0])
        os.close(pipe[1])
        self._left += 1

    def close(self) -> None:
        """Close the free pipes."""
        while self._free:
            self.discard(self._free.pop())
