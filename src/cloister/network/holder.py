"""The first and only program of a *holder* container: it owns the sandbox's network namespace, and keeps it.

    supervisor ── memfd with the ports ──▶ holder: plumb.py's work ── sockets, namespace, lines ──▶ supervisor

An engine makes the namespace (`--network none`), so the plumber must run in a container. That container stays as the
pause process of the namespace; the agent's container joins it. `runtimes/oci_holder.py` is the supervisor's side.

Rule 1: once the sockets have been passed it has no capability and no_new_privs, and nothing but loopback.
Rule 2: it lives no longer than its supervisor: the end of the connection is its end.
Rule 3: what is mounted into it is one directory with one socket; the agent's container does not have it.
"""

from __future__ import annotations

import os
import select
import sys
import time

from cloister.lean import json, signal, socket
from cloister.network import forward, plumb
from cloister.system import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

DIRECTORY = "/cloister-holder"  # where the supervisor's directory is mounted
SOCKET = "control.sock"
MESSAGE_LIMIT_BYTES = 1 << 16
TIMEOUT_S = 5.0
CALL_S = 60.0
_EVENTS_BYTES = 4096


def main() -> None:
    """Plumb, give everything up, then bind what the gateway asks for until the supervisor goes."""
    for number in (signal.SIGTERM, signal.SIGINT):  # pid 1 has no default action for them
        signal.signal(number, lambda *_: sys.exit(0))
    control = call(DIRECTORY)
    try:
        _, (orders,), _, _ = socket.recv_fds(control, MESSAGE_LIMIT_BYTES, 1)
        with open(orders, "rb") as file:
            bound = [(int(index), [int(port) for port in ports]) for index, ports in json.loads(file.read())]
        plumb.pass_sockets(bound, control)
        lines = _pass_namespace(control)
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
        linux.clear_capabilities()
        plumb.send(control, {"op": "plumbed"}, [])
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        control.send(json.dumps({"op": "failed", "text": text[:2000]}).encode())
        raise
    _stay(control, lines)


def call(directory: str) -> socket.socket:
    """Connect with whoever takes the sockets. A gateway in a container may come later than the holder: until it does.

    It moves its socket to its place once it listens. TimeoutError if it never comes.
    """
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    watching = linux.watch_directories([directory])
    try:
        poll = select.poll()
        poll.register(watching, select.POLLIN)
        end = time.monotonic() + CALL_S
        while True:
            try:
                control.connect(f"{directory}/{SOCKET}")
            except FileNotFoundError:
                if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
                    raise TimeoutError("nobody takes the sockets") from None
                os.read(watching, _EVENTS_BYTES)
            else:
                return control
    finally:
        os.close(watching)


def _pass_namespace(control: socket.socket) -> dict[socket.socket, Callable[[socket.socket], bool]]:
    """Send the network namespace, and the ends of two lines on which the gateway asks for further sockets."""
    binding, for_binding = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connecting, for_connecting = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    namespace = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    plumb.send(control, {"op": "holder"}, [namespace, for_binding.fileno()])
    plumb.send(control, {"op": "connector"}, [for_connecting.fileno()])
    for sock in (for_binding, for_connecting):
        sock.close()
    os.close(namespace)
    return {binding: _bind, connecting: _connect}


def _stay(control: socket.socket, lines: dict[socket.socket, Callable[[socket.socket], bool]]) -> None:
    poll = select.poll()
    for sock in (control, *lines):
        poll.register(sock, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in poll.poll()}
        if control.fileno() in ready:
            return  # nothing more is said there but its end
        for line, answer in lines.items():
            if line.fileno() in ready and not answer(line):
                poll.unregister(line)  # the gateway has ended; the supervisor decides what that means


def _connect(line: socket.socket) -> bool:
    """Answer one request of the gateway's for a socket of this namespace (published ports)."""
    wanted = line.recv(forward.MESSAGE_BYTES)
    if wanted:
        forward.answer(line, wanted)
    return bool(wanted)


def _bind(later: socket.socket) -> bool:
    """Answer one request of `bind_later`. Ports below 1024 are free to all where engines make the namespace."""
    request = later.recv(MESSAGE_LIMIT_BYTES)
    if not request:
        return False
    sockets: list[socket.socket] = []
    try:
        for address, port in json.loads(request):
            sockets.append(plumb.bind("tcp", str(address), int(port)))
    except OSError as error:
        later.send(json.dumps({"errno": error.errno or 5, "text": str(error)}).encode())
    else:
        socket.send_fds(later, [b'{"errno": 0}'], [bound.fileno() for bound in sockets])
    finally:
        for bound in sockets:
            bound.close()
    return True


def bind_later(line: socket.socket, bindings: list[tuple[str, int]]) -> list[socket.socket]:
    """The gateway's side: listening sockets for `bindings` (address, port), in order.

    OSError if an address is taken (a program of the sandbox listens there) or the holder is gone.
    """
    import socket  # deferred: asyncio wants sockets of the standard library's

    line.settimeout(TIMEOUT_S)
    try:
        line.send(json.dumps(bindings).encode())
        data, received, _, _ = socket.recv_fds(line, 4096, 253, socket.MSG_CMSG_CLOEXEC)
    except TimeoutError:
        line.close()  # a late answer must not be taken for that to another question
        raise
    if not data:
        raise OSError("the container that holds the sandbox's network has ended")
    answer = json.loads(data)
    if answer["errno"]:
        raise OSError(answer["errno"], answer["text"])
    return [socket.socket(fileno=descriptor) for descriptor in received]
