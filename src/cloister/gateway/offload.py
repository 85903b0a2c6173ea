"""Run a blocking call in a thread that the gateway need not wait for when it ends.

asyncio's executor joins its threads at exit, and a resolver that hangs would keep the gateway alive for
half a minute; daemon threads do not.

Rule 1: at most THREADS_LIMIT calls at a time. Others wait for WAIT_S, then fail: a caller that gave up long ago
        must not keep a place in the queue, or a flood of slow calls would be worked off for hours.
Rule 2: a thread that cannot be started (the user's limit on processes) is an OSError, and frees its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import threading
from collections.abc import Callable
from typing import TypeVar

THREADS_LIMIT = 16
WAIT_S = 5.0

T = TypeVar("T")


class Offload:
    """A bounded number of daemon threads, one per call."""

    def __init__(self, limit: int = THREADS_LIMIT, *, wait_s: float = WAIT_S) -> None:
        self._free = asyncio.Semaphore(limit)
        self._wait_s = wait_s

    async def call(self, function: Callable[[], T]) -> T:
        """What `function()` returns or raises; OSError if it cannot be called. If the caller gives up, the thread
        ends on its own.
        """
        try:
            async with asyncio.timeout(self._wait_s):
                await self._free.acquire()
        except TimeoutError:
            raise TimeoutError(errno.ETIMEDOUT, "too many others wait") from None
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            self._free.release()
            if future.cancelled():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]  # None only if T is None

        def run() -> None:
            result, error = None, None
            try:
                result = function()
            except Exception as caught:  # handed to the caller
                error = caught
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
                loop.call_soon_threadsafe(settle, result, error)

        try:
            threading.Thread(target=run, daemon=True).start()
        except RuntimeError as error:
            self._free.release()
            raise OSError(errno.EAGAIN, "no more threads") from error
        return await future
