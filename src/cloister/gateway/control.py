"""The control socket between the session or plumber and the gateway (docs/architecture.md).

Rule 1: what comes here comes from our own processes outside the sandbox; a broken message is a bug, and
        fails loudly.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket

from cloister.values import dataclass

_MESSAGE_LIMIT_BYTES = 64 * 1024
_DESCRIPTORS_LIMIT = 253  # SCM_MAX_FD


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """A listening socket, and what it is for: "tcp", "proxy", "dns-tcp", "dns-udp", "ssh-agent" or "publish".

    `port` is the sandbox's; of a published port the socket listens on the host's.
    """

    kind: str
    family: int
    sock: socket.socket
    port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """Sockets to serve."""

    sockets: tuple[Passed, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """Descriptors of the sandbox's user and network namespaces."""

    user: int
    network: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The sandbox's network namespace, and the line to the container that holds it (network/holder.py)."""

    network: int
    line: socket.socket


@dataclass(frozen=True, slots=True, kw_only=True)
class Connector:
    """The socket of a connector (network/forward.py) that the runtime has started in the sandbox's namespace."""

    sock: socket.socket


@dataclass(frozen=True, slots=True, kw_only=True)
class Plumbed:
    """All sockets have been sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """The session asks whether the gateway still serves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The session has closed its end: `told` if it said so before, otherwise it died."""

    told: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The user has answered the question about a credential."""

    name: str
    allowed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Another command of the user asks something (control_server.py), by way of the host's half."""

    number: int
    line: bytes


Message = Listen | Namespace | Holder | Connector | Plumbed | Ping | Answer | Asked | Ended


class ProtocolError(Exception):
    """Our own processes do not speak the same protocol."""


def receive(control: socket.socket) -> Message:
    """Read one message. BlockingIOError if there is none."""
    data, descriptors, _, _ = socket.recv_fds(
        control, _MESSAGE_LIMIT_BYTES, _DESCRIPTORS_LIMIT, socket.MSG_CMSG_CLOEXEC
    )
    return parse(data, tuple(descriptors))


def parse(data: bytes, descriptors: tuple[int, ...]) -> Message:
    """Understand one message. ProtocolError, ValueError or KeyError if that is not possible."""
    if not data:
        return Ended(told=False)
    message = json.loads(data)
    match message["op"]:
        case "listen" if len(message["sockets"]) == len(descriptors):
            return Listen(
                sockets=tuple(
                    Passed(
                        kind=entry["kind"],
                        family=entry["family"],
                        sock=socket.socket(fileno=descriptor),
                        port=entry["port"],
                    )
                    for entry, descriptor in zip(message["sockets"], descriptors, strict=True)
                )
            )
        case "namespace" if len(descriptors) == 2:
            return Namespace(user=descriptors[0], network=descriptors[1])
        case "holder" if len(descriptors) == 2:
            return Holder(network=descriptors[0], line=socket.socket(fileno=descriptors[1]))
        case "connector" if len(descriptors) == 1:
            return Connector(sock=socket.socket(fileno=descriptors[0]))
        case "plumbed":
            return Plumbed()
        case "ping":
            return Ping()
        case "answer":
            return Answer(name=str(message["name"]), allowed=message["allowed"] is True)
        case "asked":
            return Asked(number=int(message["number"]), line=str(message["line"]).encode())
        case "end":
            return Ended(told=True)
        case operation:
            for descriptor in descriptors:
                os.close(descriptor)
            raise ProtocolError(f"cannot understand {operation!r} with {len(descriptors)} descriptors")


def send(control: socket.socket, operation: str, text: str | None = None, *, name: str | None = None) -> None:
    """Tell the session something; it may be gone."""
    fields = {"op": operation, "text": text, "name": name}
    _send(control, {key: value for key, value in fields.items() if value is not None})


def reply(control: socket.socket, number: int, answer: dict[str, object]) -> None:
    """Answer what was `Asked`."""
    _send(control, {"op": "said", "number": number, "answer": answer})


def _send(control: socket.socket, message: dict[str, object]) -> None:
    with contextlib.suppress(OSError):
        control.send(json.dumps(message).encode(), socket.MSG_DONTWAIT)
