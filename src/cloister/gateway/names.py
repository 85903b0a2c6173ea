"""Which allowed name owns which stand-in address (`network/standin.py`).

Rule 1: a name keeps its index for the sandbox's life, and an index is never given to another name: a
        client may hold an address for as long as it likes.
Rule 2: bounded. Names that the policy spells out always find room; those that only a pattern covers share
        PATTERN_NAMES_LIMIT places, because the sandbox can invent them without end.
"""

from __future__ import annotations

from collections.abc import Iterable

from cloister.network import standin
from cloister.types import Host

PATTERN_NAMES_LIMIT = 8192


class NameTable:
    """Names and their indexes. Entry i of `bound` (the plan's) owns `standin.FIRST_INDEX + i`."""

    def __init__(self, bound: Iterable[Host] = (), *, pattern_names_limit: int = PATTERN_NAMES_LIMIT) -> None:
        self._hosts: dict[int, Host] = {}
        self._indexes: dict[Host, int] = {}
        self._pattern_names_left = pattern_names_limit
        for host in bound:
            self._add(host)

    def index(self, host: Host, *, spelled_out: bool) -> int | None:
        """The index of `host`, new if need be; None if there is no room left for it."""
        known = self._indexes.get(host)
        if known is not None:
            return known
        if not spelled_out:
            if self._pattern_names_left <= 0:
                return None
            self._pattern_names_left -= 1
        return self._add(host)

    def host(self, address: str) -> Host | None:
        """The name that the stand-in `address` stands for; None if it stands for none."""
        index = standin.index_of(address)
        return None if index is None else self._hosts.get(index)

    def _add(self, host: Host) -> int | None:
        index = standin.FIRST_INDEX + len(self._hosts)
        if index > standin.LAST_INDEX:
            return None
        self._hosts[index] = host
        self._indexes.setdefault(host, index)
        return index
