"""Accept connections from the sandbox, up to a limit, and run a handler for each.

Rule 1: at the limit, or out of descriptors, it stops accepting (the kernel's backlog holds the rest),
        says so once, and goes on when there is room. It never spins and never dies of EMFILE.
        Connections that are still read or judged here have a lower limit than those that are only joined: each
        may hold a whole HTTP head, and the sandbox's memory limit does not count the gateway's.
Rule 2: an exception in a handler closes that connection, is written down, and nothing else.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable

from cloister.audit.log import Event
from cloister.gateway.connection import prepare
from cloister.gateway.record import Record
from cloister.gateway.wire import SocketWire

CONNECTIONS_LIMIT = 16384
HANDLERS_LIMIT = 1024
_ACCEPTS_A_TURN = 64
_RETRY_S = 0.5
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

Handler = Callable[[SocketWire], Awaitable[None]]


class Acceptor:
    """All TCP listeners of one gateway. `spliced()` counts the connections that have no handler any more."""

    def __init__(self, *, record: Record, limit: int, spliced: Callable[[], int]) -> None:
        self._record = record
        self._limit = limit
        self._handlers_limit = min(limit, HANDLERS_LIMIT)
        self._spliced = spliced
        self._listeners: list[tuple[socket.socket, Handler]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._paused = False
        self._told = False
        self._retry: asyncio.TimerHandle | None = None

    def add(self, listener: socket.socket, handler: Handler) -> None:
        """Serve a listening socket from now on."""
        listener.setblocking(False)
        self._listeners.append((listener, handler))
        if not self._paused:
            asyncio.get_running_loop().add_reader(listener.fileno(), self._readable, listener, handler)

    def released(self) -> None:
        """A connection has ended: there may be room again (with some slack, so as not to flutter)."""
        limits = ((self._active(), self._limit), (len(self._tasks), self._handlers_limit))
        if self._paused and all(count <= limit - limit // 64 for count, limit in limits):
            self._resume()

    async def close(self) -> None:
        """Stop accepting, and end the handlers that still run."""
        self._pause()
        if self._retry is not None:
            self._retry.cancel()
        for listener, _ in self._listeners:
            listener.close()
        self._listeners.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _readable(self, listener: socket.socket, handler: Handler) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            if self._active() >= self._limit:
                self._pause()
                self._tell(f"{self._limit} connections are open: accepting no more until some end")
                return
            if len(self._tasks) >= self._handlers_limit:
                self._pause()
                self._tell(f"{self._handlers_limit} connections wait for their first bytes or an answer")
                return
            try:
                sock, _ = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._pause()
                    self._tell(
                        f"out of descriptors or memory ({errno.errorcode[error.errno or 0]}): not accepting"
                    )
                    self._retry = asyncio.get_running_loop().call_later(_RETRY_S, self._resume)
                    return
                continue  # that connection has gone already (accept(2) lists the network errors)
            task = asyncio.get_running_loop().create_task(self._handle(sock, handler))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    async def _handle(self, sock: socket.socket, handler: Handler) -> None:
        wire = SocketWire(sock)
        try:
            prepare(sock)
            await handler(wire)
        except (OSError, TimeoutError):
            pass  # the client went away, or does not take what we send
        except Exception as error:  # a bug of ours must not reach the other connections
            self._record.internal_error(error, where="connection handler")
        finally:
            wire.close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.released()

    def _active(self) -> int:
        return len(self._tasks) + self._spliced()

    def _pause(self) -> None:
        self._paused = True
        for listener, _ in self._listeners:
            asyncio.get_running_loop().remove_reader(listener.fileno())

    def _resume(self) -> None:
        self._paused = False
        for listener, handler in self._listeners:
            asyncio.get_running_loop().add_reader(listener.fileno(), self._readable, listener, handler)

    def _tell(self, text: str) -> None:
        if not self._told:
            self._told = True
            self._record.event(Event(kind="alarm", text=text))
