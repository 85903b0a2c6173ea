"""Serve what connects to a listening socket: each connection is a task, and there are never more than a few.

Rule 1: bounded: a connection above `limit` is closed at once, unread.
Rule 2: whoever closes it ends all its tasks; `close` is idempotent.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable


class Acceptor:
    """Owns `listener` from now on. `admit` says whether a connection is served at all; `serve` owns its socket."""

    def __init__(
        self,
        listener: socket.socket,
        serve: Callable[[socket.socket], Awaitable[None]],
        *,
        limit: int,
        admit: Callable[[socket.socket], bool] = lambda _: True,
    ) -> None:
        self._listener: socket.socket | None = listener
        self._serve = serve
        self._limit = limit
        self._admit = admit
        self._tasks: set[asyncio.Task[None]] = set()
        listener.setblocking(False)
        asyncio.get_running_loop().add_reader(listener.fileno(), self._readable, listener)

    async def close(self) -> None:
        """Stop accepting, and end what is served."""
        listener, self._listener = self._listener, None
        if listener is not None:
            asyncio.get_running_loop().remove_reader(listener.fileno())
            listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _readable(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:  # it has gone again, or there are no descriptors: who asks will see the end
            return
        if len(self._tasks) >= self._limit or not self._admit(sock):
            sock.close()
            return
        sock.setblocking(False)
        task = asyncio.get_running_loop().create_task(self._run(sock))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, sock: socket.socket) -> None:
        with sock:
            await self._serve(sock)
