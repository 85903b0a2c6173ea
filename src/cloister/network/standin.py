"""Stand-in addresses: what the gateway's DNS answers instead of real addresses.

Each allowed name gets an index; index N is 198.18.0.0 + N (RFC 2544's benchmarking block, never routed) and
fdc1:0157:e400::N. The two are twins: both stand for the same name.

Rule 1: a pure mapping; which name owns an index is the business of `gateway/names.py`.
Rule 2: index 0 is never used; index 1 is the loopback interface's own address in the sandbox, so that
        resolvers with AI_ADDRCONFIG see a configured address of each family; names start at FIRST_INDEX.
"""

from __future__ import annotations

from cloister.lean import socket

V4_BASE = 198 << 24 | 18 << 16
V4_SIZE = 1 << 17  # a /15
V6_PREFIX = bytes.fromhex("fdc10157e4000000")  # a /64
LOOPBACK_INDEX = 1
FIRST_INDEX = 2
LAST_INDEX = V4_SIZE - 2


def v4(index: int) -> str:
    """The IPv4 stand-in of `index`. ValueError if it is out of range."""
    _check(index)
    return socket.inet_ntop(socket.AF_INET, (V4_BASE + index).to_bytes(4, "big"))


def v6(index: int) -> str:
    """The IPv6 stand-in of `index`. ValueError if it is out of range."""
    _check(index)
    return socket.inet_ntop(socket.AF_INET6, V6_PREFIX + index.to_bytes(8, "big"))


def index_of(address: str) -> int | None:
    """The index that `address` stands for; None if it is no stand-in or not an address (a zone id included)."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        packed = socket.inet_pton(family, address)
    except (OSError, ValueError):
        return None
    if family == socket.AF_INET:
        index = int.from_bytes(packed, "big") - V4_BASE
    elif packed[:8] == V6_PREFIX:
        index = int.from_bytes(packed[8:], "big")
    else:
        return None
    return index if LOOPBACK_INDEX <= index <= LAST_INDEX else None


def _check(index: int) -> None:
    if not LOOPBACK_INDEX <= index <= LAST_INDEX:
        raise ValueError(f"stand-in index {index} is not in {LOOPBACK_INDEX}..{LAST_INDEX}")
