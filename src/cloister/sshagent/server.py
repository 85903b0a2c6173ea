"""Serve the filtered agent on a socket that the sandbox sees, in front of the user's own.

Rule 1: what is passed on has been judged (`filter.py`); a signature is confirmed if that is wanted, and always told.
Rule 2: bounded: connections, sizes, time.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

from cloister.errors import UntrustedInputError
from cloister.sshagent.filter import FAILURE, AgentRules, Answer, Filter, Forward
from cloister.system.accept import Acceptor

CONNECTIONS_LIMIT = 16
MESSAGE_LIMIT_BYTES = 256 * 1024
IDLE_S = 3600.0
ANSWER_S = 60.0  # the user's agent may ask for a touch

Confirm = Callable[[str], Awaitable[bool]]
Log = Callable[[str], None]


class AgentServer:
    """`confirm` (a key's name) says whether a signature may be made; `log` hears of each, and of each refusal."""

    def __init__(self, upstream: str, rules: AgentRules, *, confirm: Confirm, log: Log) -> None:
        self._upstream = upstream
        self._rules = rules
        self._confirm = confirm
        self._log = log
        self._acceptor: Acceptor | None = None

    def start(self, listener: socket.socket) -> None:
        """Accept on a listening Unix socket, which is owned from now on."""
        self._acceptor = Acceptor(listener, self._serve, limit=CONNECTIONS_LIMIT)

    async def close(self) -> None:
        """Stop. Idempotent."""
        if self._acceptor is not None:
            await self._acceptor.close()

    async def _serve(self, sock: socket.socket) -> None:
        judge = Filter(self._rules)
        with suppress(OSError, TimeoutError, UntrustedInputError):
            while True:
                async with asyncio.timeout(IDLE_S):
                    message = await _receive(sock)
                await _send(sock, await self._answer(judge, message))

    async def _answer(self, judge: Filter, message: bytes) -> bytes:
        if not judge.comments:  # keys may be named by comment, which only the agent's list tells
            with suppress(OSError, TimeoutError, UntrustedInputError):
                judge.identities(await self._ask(b"\x0b"))
        match judge.request(message):
            case Answer(message=answer, reason=reason):
                if reason:
                    self._log(f"refused: {reason}")
                return answer
            case Forward(message=passed, lists=lists, signs=signs):
                if signs and not await self._confirm(signs):
                    self._log(f"refused: the user has not allowed the key {signs!r}")
                    return FAILURE
                try:
                    answer = await self._ask(passed)
                except (OSError, TimeoutError) as error:
                    self._log(f"the user's agent does not answer: {type(error).__name__}")
                    return FAILURE
                if signs:
                    self._log(f"signed a log-in with the key {signs!r}")
                return judge.identities(answer) if lists else answer

    async def _ask(self, message: bytes) -> bytes:
        """One message to the user's agent, on a connection of its own: what the sandbox binds must not stay there."""
        with socket.socket(socket.AF_UNIX) as upstream:
            upstream.setblocking(False)
            async with asyncio.timeout(ANSWER_S):
                await asyncio.get_running_loop().sock_connect(upstream, self._upstream)
                await _send(upstream, message)
                return await _receive(upstream)


async def _receive(sock: socket.socket) -> bytes:
    """One message. ConnectionResetError at the end of the stream, UntrustedInputError if it is too long."""
    size = int.from_bytes(await _exactly(sock, 4), "big")
    if not 0 < size <= MESSAGE_LIMIT_BYTES:
        raise UntrustedInputError("a message of the agent's protocol is too long")
    return await _exactly(sock, size)


async def _exactly(sock: socket.socket, count: int) -> bytes:
    loop, data = asyncio.get_running_loop(), b""
    while len(data) < count:
        part = await loop.sock_recv(sock, count - len(data))
        if not part:
            raise ConnectionResetError
        data += part
    return data


async def _send(sock: socket.socket, message: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, len(message).to_bytes(4, "big") + message)
