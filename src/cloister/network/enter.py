"""Programs of ours in a sandbox's namespaces, and the one that binds sockets there after it has started.

Needed where a pattern (`*.example.com:8443`) names a port: which stand-in address it will need is known only when the
sandbox asks for a name. setns(2) into a user namespace needs a single-threaded process, and the gateway has threads,
so a short-lived program does it: `main` below. `forward.py` has another such program.

Rule 1: a helper gets two namespace descriptors, a socket and a few words; nothing of the environment.
"""

from __future__ import annotations

import os
import sys

from cloister.lean import json, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess

TIMEOUT_S = 5.0


def start(
    module: str, theirs: socket.socket, user_namespace: int, network_namespace: int, *words: str
) -> subprocess.Popen[bytes]:
    """Run `main` of a module of this package with the numbers of the three descriptors and `words`. OSError."""
    from cloister.system import proc

    numbers = (theirs.fileno(), user_namespace, network_namespace)
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    code = (
        f"import sys; sys.path.insert(0, {root!r}); from cloister.network import {module} as program; "
        "program.main(sys.argv[1:])"
    )
    return proc.start(
        [sys.executable, "-I", "-S", "-c", code, *map(str, numbers), *words], descriptors=numbers
    )


def bind_later(
    user_namespace: int, network_namespace: int, bindings: list[tuple[str, int]]
) -> list[socket.socket]:
    """Listening sockets for `bindings` (address, port), in order. Blocks for some 20 ms.

    OSError if an address is taken (a program of the sandbox listens there) or the helper fails.
    """
    import socket  # deferred, both: asyncio wants sockets of the standard library's

    from cloister.system import proc

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.settimeout(TIMEOUT_S)
        child = start("enter", theirs, user_namespace, network_namespace, json.dumps(bindings))
        theirs.close()
        try:
            data, received, _, _ = socket.recv_fds(ours, 4096, 253)
        finally:
            proc.reap(child, timeout_s=TIMEOUT_S)
    if not data:
        raise OSError("the helper that binds sockets in the sandbox's namespace died")
    answer = json.loads(data)
    if answer["errno"]:
        raise OSError(answer["errno"], answer["text"])
    return [socket.socket(fileno=descriptor) for descriptor in received]


def main(arguments: list[str]) -> None:
    """The helper: arguments are the socket's and the two namespaces' descriptors and the bindings as JSON."""
    from cloister.network import plumb
    from cloister.system import linux

    answer = socket.socket(fileno=int(arguments[0]))
    try:
        linux.setns(int(arguments[1]), linux.CLONE_NEWUSER)
        linux.setns(int(arguments[2]), linux.CLONE_NEWNET)
        sockets = [plumb.bind("tcp", address, port) for address, port in json.loads(arguments[3])]
    except OSError as error:
        answer.send(json.dumps({"errno": error.errno or 5, "text": str(error)}).encode())
        return
    socket.send_fds(answer, [b'{"errno": 0}'], [bound.fileno() for bound in sockets])
