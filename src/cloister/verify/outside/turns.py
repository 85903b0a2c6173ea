"""Whose turn it is: how many of the host's probes make sandboxes at a time, from when on. A byte in a pipe is a turn.

Rule 1: none begins before `begin`: where the sandbox itself does not run, nothing has to be waited for or removed.
Rule 2: after `end` none begins any more.
"""

from __future__ import annotations

import os

_TURN, _OVER = b"t", b"o"


class Turns:
    """Made before the probes' processes are forked; `take` and `give` are theirs, the others their maker's."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._begun = False
        self._reading, self._writing = os.pipe()

    def take(self) -> bool:
        """Wait for one. False: it is over."""
        if os.read(self._reading, 1) == _TURN:
            return True
        os.write(self._writing, _OVER)  # for the next who waits
        return False

    def give(self) -> None:
        """To the next one."""
        os.write(self._writing, _TURN)

    def begin(self) -> None:
        """Idempotent."""
        if not self._begun:
            os.write(self._writing, _TURN * self._at_once)
        self._begun = True

    def end(self) -> None:
        """Let nobody wait any longer."""
        os.write(self._writing, _OVER)

    def close(self) -> None:
        """Of this process."""
        os.close(self._reading)
        os.close(self._writing)
