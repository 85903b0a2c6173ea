"""The connector: makes TCP sockets inside a sandbox's network namespace, for its published ports.

A socket belongs for good to the network namespace in which it was made, wherever it is used. So a small process in
the sandbox's namespaces makes unconnected sockets and passes them out, and the gateway connects them there: to the
sandbox's own loopback, without waiting in this process. setns(2) into a user namespace needs a single-threaded
process, which the gateway is not.

    gateway → connector  b"4" or b"6"
    connector → gateway  b"0" + [socket], or the errno in decimal

Rule 1: it connects and listens to nothing, reads nothing of the sandbox, and has no capability once it serves.
Rule 2: it ends with its peer: end of file on the socket.
Rule 3: other runtimes run `serve` in a process that is in the namespace already, and pass its socket on
        ({"op": "connector"}, docs/architecture.md).
"""

from __future__ import annotations

import errno
import os

from cloister.lean import socket, suppress
from cloister.network import enter
from cloister.system import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess

FAMILIES = {b"4": socket.AF_INET, b"6": socket.AF_INET6}
OK = b"0"
MESSAGE_BYTES = 16


def start(user_namespace: int, network_namespace: int) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start a connector in these namespaces: our end of its socket, and the process. Blocks for some ms; OSError."""
    import socket  # deferred: asyncio wants sockets of the standard library's

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        try:
            return ours, enter.start("forward", theirs, user_namespace, network_namespace)
        except BaseException:
            ours.close()
            raise


def main(arguments: list[str]) -> None:
    """The helper: arguments are the socket's and the two namespaces' descriptors."""
    peer = socket.socket(fileno=int(arguments[0]))
    user, network = int(arguments[1]), int(arguments[2])
    linux.setns(user, linux.CLONE_NEWUSER)
    linux.setns(network, linux.CLONE_NEWNET)
    os.close(user)
    os.close(network)
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    linux.drop_capabilities()
    serve(peer)


def serve(peer: socket.socket) -> None:
    """Answer until the peer is gone."""
    with suppress(ConnectionError):  # it went with an answer unread
        while wanted := peer.recv(MESSAGE_BYTES):
            answer(peer, wanted)


def answer(peer: socket.socket, wanted: bytes) -> None:
    """Send one socket, or why there is none."""
    try:
        made = socket.socket(
            FAMILIES[wanted], socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
    except KeyError:
        peer.send(str(errno.EINVAL).encode())
    except OSError as error:
        peer.send(str(error.errno or errno.EIO).encode())
    else:
        with made:
            socket.send_fds(peer, [OK], [made.fileno()])
