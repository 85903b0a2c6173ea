"""How many connections a gateway serves at a time, by what this process may have of descriptors (getrlimit(2))."""

from __future__ import annotations

import resource

from cloister.gateway.accept import CONNECTIONS_LIMIT
from cloister.gateway.on_demand import SOCKETS_LIMIT

PUBLISHED_LIMIT = 512  # connections to published ports
_RESERVED_DESCRIPTORS = 128


def connections(*, publishing: bool) -> int:
    """Raise the soft limit on descriptors to the hard one; a connection takes two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        return CONNECTIONS_LIMIT
    reserved = _RESERVED_DESCRIPTORS + on_demand() + (2 * published() if publishing else 0)
    return max(16, min(CONNECTIONS_LIMIT, (hard - reserved) // 2))


def published() -> int:
    """Connections to published ports."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return PUBLISHED_LIMIT if hard == resource.RLIM_INFINITY else min(PUBLISHED_LIMIT, hard // 16)


def on_demand() -> int:
    """Listening sockets that patterns of names ask for (on_demand.py)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return SOCKETS_LIMIT if hard == resource.RLIM_INFINITY else min(SOCKETS_LIMIT, hard // 8)
