"""The socket on which other commands of the user ask a sandbox's gateway about its credentials, and answer it.

    {"op": "pending"}                → {"pending": [{"name", "host", "since"}]}
    {"op": "approve", "name": "x"}   → {"done": true} or {"error": "…"}          (also "refuse")
    {"op": "credentials"}            → {"credentials": [{"name", "state", "expires_at", "reason"}]}

One JSON object a line, both ways.

Rule 1: nothing here shows a value, and nothing makes the gateway reach anything.
Rule 2: the peer is a process of the same user, outside of the sandbox: another user namespace is none of ours. (The
        sandbox does not see the socket either; its agent has the user's uid.)
Rule 3: bounded: connections, the length of a line, the time.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress

from cloister.gateway.vault import Vault
from cloister.system import accept, unix

CONNECTIONS_LIMIT = 8
LINE_LIMIT_BYTES = 4096
DEADLINE_S = 10.0  # for a whole connection
_CREDENTIALS = struct.Struct("3i")  # struct ucred, unix(7): pid, uid, gid


Answers = Callable[[bytes], Awaitable[dict[str, object]]]


class ControlServer:
    """Listens at `path` until it is closed; `answers` gives what is said to one line.

    `same_world` says whether a process is outside of the sandbox.
    """

    def __init__(
        self, path: str, answers: Answers, *, same_world: Callable[[int], bool] | None = None
    ) -> None:
        self._path = path
        self._answers = answers
        self._same_world = same_world or in_our_user_namespace
        self._acceptor: accept.Acceptor | None = None

    def start(self) -> None:
        """Listen. OSError if that is not possible."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            unix.bind(listener, self._path)
            listener.listen(CONNECTIONS_LIMIT)
        except BaseException:
            listener.close()
            raise
        self._acceptor = accept.Acceptor(listener, self._serve, limit=CONNECTIONS_LIMIT, admit=self._is_ours)

    async def close(self) -> None:
        """Stop, and remove the socket. Idempotent."""
        acceptor, self._acceptor = self._acceptor, None
        if acceptor is not None:
            with suppress(FileNotFoundError):
                os.unlink(self._path)
            await acceptor.close()

    def _is_ours(self, sock: socket.socket) -> bool:
        pid, uid, _ = _CREDENTIALS.unpack(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        return uid == os.geteuid() and pid > 0 and self._same_world(pid)

    async def _serve(self, sock: socket.socket) -> None:
        """Answer line after line."""
        loop = asyncio.get_running_loop()
        data = b""
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(DEADLINE_S):
                while chunk := await loop.sock_recv(sock, LINE_LIMIT_BYTES):
                    data += chunk
                    *lines, data = data.split(b"\n")
                    for line in lines:
                        said = await self._answers(line)
                        await loop.sock_sendall(sock, json.dumps(said).encode() + b"\n")
                    if len(data) > LINE_LIMIT_BYTES:
                        return


def answers(vault: Vault) -> Answers:
    """Those of a vault that is here."""

    async def said(line: bytes) -> dict[str, object]:
        return answer(vault, line)

    return said


def answer(vault: Vault, line: bytes) -> dict[str, object]:
    """What is said to one line."""
    try:
        asked = json.loads(line)
        operation, name = asked["op"], asked.get("name", "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {"error": "this is not understood; expected a JSON object with an op"}
    match operation:
        case "pending":
            waiting = vault.pending()
            return {"pending": [{"name": one.name, "host": one.host, "since": one.since} for one in waiting]}
        case "credentials":
            return {
                "credentials": [
                    {"name": one.name, "state": one.word, "expires_at": one.expires_at, "reason": one.reason}
                    for one in vault.states()
                ]
            }
        case "approve" | "refuse" if isinstance(name, str):
            if vault.decide(name, allowed=operation == "approve"):
                return {"done": True}
            return {"error": f"there is no credential {name[:100]!r} that asks before it is used"}
        case _:
            return {"error": f"there is no operation {str(operation)[:40]!r}"}


def in_our_user_namespace(pid: int) -> bool:
    """Whether a process lives in this one's user namespace; a sandbox has its own."""
    try:
        theirs, ours = os.stat(f"/proc/{pid}/ns/user"), os.stat("/proc/self/ns/user")
    except OSError:
        return False
    return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)
