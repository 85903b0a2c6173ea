"""How many directions may hold a large part that their sink has not taken (splice.py).

Rule 1: bounded, and never a failure: without one a direction moves less at a time.
"""

from __future__ import annotations

LIMIT = 64  # of BULK_BYTES each: 8 MiB, whatever the sandbox does


class Allowance:
    """A count of what is left. `take` and `give`."""

    __slots__ = ("left",)

    def __init__(self, limit: int = LIMIT) -> None:
        self.left = limit

    def take(self) -> None:
        """One less. The caller has seen that there is one."""
        self.left -= 1

    def give(self) -> None:
        """One more."""
        self.left += 1
