"""The bytes of a wire that has switched protocols."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.gateway.wire import take

if TYPE_CHECKING:
    from cloister.gateway.wire import Wire


class WireStream:
    """See `streams.RawStream`."""

    __slots__ = ("_wire",)

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def read(self) -> bytes:
        if not self._wire.buffer and not await self._wire.more():
            return b""
        return take(self._wire)

    async def write(self, data: bytes) -> None:
        await self._wire.send(data)

    async def finish(self) -> None:
        await self._wire.finish()

    def abort(self) -> None:
        self._wire.close()

    def reset(self) -> None:
        self._wire.reset()
