"""Listen on this machine's loopback for the sandbox's published ports, before anything of it exists.

Rule 1: 127.0.0.1, and ::1 where there is IPv6; never another address.
Rule 2: all or nothing. A port that is in use is an error that names who uses it; one that may be any (`auto`) takes
        the next free one.
Rule 3: these sockets only listen. The gateway accepts (`gateway/published.py`).
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Sequence

from cloister.errors import HostError
from cloister.network import listeners
from cloister.policy.published import PublishedPort
from cloister.values import dataclass

BACKLOG = 128
_AUTO_TRIES = 50
_LAST_PORT = 65535
_LOOPBACKS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_NO_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A port that is published, at the one that it really got, and its listening sockets, which the holder closes."""

    port: PublishedPort
    sockets: tuple[socket.socket, ...]

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


def bind(ports: Iterable[PublishedPort]) -> tuple[Bound, ...]:
    """Listen for all of `ports`, in order. HostError if one cannot be had; nothing listens then."""
    found: list[Bound] = []
    # Those that are fixed first: an `auto` must not take what another one names.
    try:
        for port in sorted(ports, key=lambda one: one.auto):
            found.append(_bind_auto(port) if port.auto else _bind(port, port.host))
    except BaseException:
        for bound in found:
            bound.close()
        raise
    return tuple(found)


def check(ports: Iterable[PublishedPort]) -> None:
    """HostError, as `bind`, if one of `ports` cannot be had now."""
    for bound in bind(ports):
        bound.close()


def _bind(port: PublishedPort, number: int) -> Bound:
    try:
        return Bound(port=port, sockets=_loopback_sockets(number))
    except OSError as error:
        raise _refusal(port, error) from None


def _bind_auto(port: PublishedPort) -> Bound:
    last = min(port.host + _AUTO_TRIES - 1, _LAST_PORT)
    for number in range(port.host, last + 1):
        try:
            sockets = _loopback_sockets(number)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise _refusal(port, error) from None
        else:
            return Bound(port=PublishedPort(host=number, sandbox=port.sandbox, auto=True), sockets=sockets)
    raise HostError(
        f"no port of this machine from {port.host} to {last} is free, and port {port.sandbox} of the sandbox is to be "
        "published there",
        resolution=f"name one that is free: -p FREE:{port.sandbox}",
    )


def _loopback_sockets(number: int) -> tuple[socket.socket, ...]:
    found: list[socket.socket] = []
    try:
        for family, address in _LOOPBACKS:
            sock = _listener(family, address, number)
            if sock is not None:
                found.append(sock)
    except BaseException:
        for sock in found:
            sock.close()
        raise
    if not found:
        raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    return tuple(found)


def _listener(family: int, address: str, number: int) -> socket.socket | None:
    """A listening socket; None if this machine lacks the family."""
    sock = None
    try:
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # over connections in TIME_WAIT, not over listeners
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, number))
        sock.listen(BACKLOG)
    except OSError as error:
        if sock is not None:
            sock.close()
        if error.errno in _NO_FAMILY:
            return None
        raise
    return sock


def _refusal(port: PublishedPort, error: OSError) -> HostError:
    wanted = f"port {port.sandbox} of the sandbox is to be published there"
    if error.errno == errno.EACCES:
        return HostError(
            f"you may not listen on port {port.host} of this machine, and {wanted}",
            details="ports below 1024 are root's (sysctl net.ipv4.ip_unprivileged_port_start)",
            resolution=f"publish it elsewhere: -p {_elsewhere(port)}, or the same in [sandbox] ports",
        )
    if error.errno != errno.EADDRINUSE:
        return HostError(
            f"port {port.host} of this machine cannot be had, and {wanted}: {error.strerror}",
            resolution="run: cloister doctor",
        )
    return HostError(
        f"port {port.host} of this machine is in use{_by_whom(listeners.holders(port.host))}, and {wanted}",
        resolution=f"stop that, or publish it elsewhere: -p {_elsewhere(port)}, or the same in [sandbox] ports",
    )


def _by_whom(holders: Sequence[listeners.Holder]) -> str:
    if not holders:
        return ""
    return " by " + " and ".join(f"{holder.name!r} (pid {holder.pid})" for holder in holders)


def _elsewhere(port: PublishedPort) -> str:
    other = (
        port.host + 8000 if port.host < 1024 else port.host + 1 if port.host < _LAST_PORT else port.host - 1
    )
    return f"{other}:{port.sandbox}"
