"""The supervisor's end of a holder container (network/holder.py): take its sockets, and pass them to the gateway.

Rule 1: the socket lies in a directory that is mounted into the holder alone; its parents are private (0700), so nobody
        but the user, root and that container reaches it. It takes one connection and is then removed.
Rule 2: what comes is looked at before it is passed on: kinds of sockets, numbers of descriptors.
Rule 3: the connection stays open as long as the supervisor lives: its end is the holder's end.
"""

from __future__ import annotations

import json
import os
import socket

from cloister.errors import CloisterError, HostError
from cloister.network import holder
from cloister.system import unix

KINDS = frozenset({"tcp", "proxy", "dns-tcp", "dns-udp"})
_DESCRIPTORS_LIMIT = 253  # SCM_MAX_FD
_EXPECTED = {"holder": 2, "connector": 1, "plumbed": 0}  # descriptors that come with each
_PACKET_S = 10.0


class Line:
    """Listens in `directory`, which is made, or (`made`) is there already, from construction on."""

    def __init__(self, directory: str, *, made: bool = False) -> None:
        self._path = f"{directory}/{holder.SOCKET}"
        if not made:
            os.mkdir(directory, 0o755)
            # The holder, root without capabilities, is "others" here; and it watches the directory, which is reading.
            os.chmod(directory, 0o755)  # noqa: S103 - Rule 1
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        unix.bind(self._listener, f"{self._path}.new", mode=0o666)
        self._listener.listen(1)
        os.rename(f"{self._path}.new", self._path)  # whoever finds it there can connect
        self.connection: socket.socket | None = None

    def fileno(self) -> int:
        """Becomes readable when the holder calls."""
        return self._listener.fileno()

    def accept(self, bound: list[tuple[int, list[int]]], gateway: socket.socket) -> None:
        """Take the holder's call, tell it what to bind, and pass on all that it sends. HostError if it fails."""
        self.connection, _ = self._listener.accept()
        self._listener.close()
        os.unlink(self._path)
        self.connection.settimeout(_PACKET_S)
        orders = os.memfd_create("cloister-bound", os.MFD_CLOEXEC)
        with open(orders, "wb") as file:
            file.write(json.dumps(bound).encode())
            file.flush()
            os.lseek(orders, 0, os.SEEK_SET)
            socket.send_fds(self.connection, [b"{}"], [orders])
        try:
            while self._pass_one(self.connection, gateway) != "plumbed":
                continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _broken(f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        """End the holder. Idempotent."""
        for sock in (self.connection, self._listener):
            if sock is not None:
                sock.close()

    @staticmethod
    def _pass_one(connection: socket.socket, gateway: socket.socket) -> str:
        data, descriptors, _, _ = socket.recv_fds(
            connection, holder.MESSAGE_LIMIT_BYTES, _DESCRIPTORS_LIMIT, socket.MSG_CMSG_CLOEXEC
        )
        try:
            if not data:
                raise _broken("it ended before it had set up the network")
            message = json.loads(data)
            operation = str(message["op"])
            if operation == "failed":
                raise _broken(str(message["text"]))
            if operation == "listen":
                _check([str(entry["kind"]) for entry in message["sockets"]], descriptors)
            elif len(descriptors) != _EXPECTED[operation]:
                raise ValueError(f"{operation!r} with {len(descriptors)} descriptors")
            socket.send_fds(gateway, [data], descriptors)
            return operation
        finally:
            for descriptor in descriptors:
                os.close(descriptor)


def _check(kinds: list[str], descriptors: list[int]) -> None:
    if len(kinds) != len(descriptors) or not KINDS.issuperset(kinds):
        raise ValueError(f"{len(descriptors)} descriptors for {kinds}")


def _broken(what: str) -> CloisterError:
    return HostError(
        "the sandbox's network could not be set up in its container",
        details=what,
        resolution="run: cloister doctor; or do without containers: --runtime embedded",
    )
