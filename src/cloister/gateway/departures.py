"""Tell that the other end of a connection has ended its stream, or has gone, while nobody reads from it.

An end stands behind what was sent before it, and that may have to wait: a next request, a body that no upstream takes
yet. EPOLLRDHUP (epoll_ctl(2)) tells of an end all the same, and asyncio cannot ask for it. So this is an epoll of our
own, which asyncio's watches.

Rule 1: one registration a connection, none a request.
Rule 2: what is told is a fact about the stream. Whether it means that nobody waits any more, others decide.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Callable, Iterator

_BROKEN = select.EPOLLERR | select.EPOLLHUP

Tell = Callable[[bool], None]


class Departures:
    """One for the gateway's life."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._told: dict[int, Tell] = {}
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._look)

    @contextlib.contextmanager
    def watched(self, descriptor: int, tell: Tell) -> Iterator[None]:
        """Call `tell(False)` when the other end has ended its stream, `tell(True)` when the connection is broken."""
        if descriptor < 0:  # closed already
            yield
            return
        self._epoll.register(
            descriptor, select.EPOLLRDHUP | select.EPOLLET
        )  # once each, not for as long as it is so
        self._told[descriptor] = tell
        try:
            yield
        finally:
            # One that was closed meanwhile has left the epoll, and its number may be another connection's by now.
            if self._told.get(descriptor) is tell:
                del self._told[descriptor]
                with contextlib.suppress(OSError, ValueError):  # closed, or all of it is
                    self._epoll.unregister(descriptor)

    def close(self) -> None:
        """Watch no more."""
        if not self._epoll.closed:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
        self._told.clear()

    def _look(self) -> None:
        for descriptor, events in self._epoll.poll(0):
            if (tell := self._told.get(descriptor)) is not None:
                tell(bool(events & _BROKEN))
