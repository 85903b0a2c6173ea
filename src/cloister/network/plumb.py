"""Make this process's network namespace exit-less, bind the gateway's sockets in it, hand them over.

Runs in the *plumber*: a forked child of the session that then becomes the sandbox's first program.

Rule 1: the namespace gets loopback and nothing else. There is nothing to configure wrongly.
Rule 2: every socket listens before the sandbox starts; the backlog keeps what arrives before the gateway is ready.
Rule 3: a wildcard listener only on the ports that mean the outside world (53, 80, 443). A port that only a rule names
        is bound on that rule's stand-in addresses, so the sandbox may serve it on 127.0.0.1 itself.
"""

from __future__ import annotations

import errno
import os

from cloister.lean import json, socket
from cloister.network import standin
from cloister.system import linux, netlink

WILDCARD_PORTS = (80, 443)
DNS_PORT = 53
PROXY_PORT = 3128
BACKLOG = 4096
_NOWHERE = "192.0.2.1"
_UNCAPTURED_PORT = 9  # discard
_PROBE_TIMEOUT_S = 1.0
DESCRIPTORS_A_PACKET = 100  # SCM_MAX_FD is 253

_IP_PKTINFO = 8  # Python 3.11 does not name these two
_IPV6_FREEBIND = 78

# One listening socket as the gateway is told of it: {"kind", "family", "address", "port"}.
Description = dict[str, str | int]


def enter_fresh_namespaces(uid: int, gid: int) -> None:
    """Unshare user and network namespaces, mapped to uid and gid 0 in the new user namespace.

    `uid` and `gid` are this process's own. OSError EPERM or ENOSPC where the host forbids user namespaces.
    """
    linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNET)
    # user_namespaces(7): without CAP_SETGID outside, setgroups must be denied before gid_map is written.
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"0 {uid} 1")
    _write("/proc/self/gid_map", f"0 {gid} 1")


def plumb(bound: list[tuple[int, list[int]]], gateway: socket.socket) -> None:
    """Set up the namespace that this process is in and pass its sockets, and the namespaces, to the gateway."""
    pass_sockets(bound, gateway)
    _send_namespaces(gateway)
    send(gateway, {"op": "plumbed"}, [])


def pass_sockets(bound: list[tuple[int, list[int]]], gateway: socket.socket) -> None:
    """Set up the namespace that this process is in and pass its sockets to the gateway.

    `bound` lists (stand-in index, ports) for the ports that only a rule names.
    """
    families = configure()
    sockets: list[tuple[Description, socket.socket]] = []
    for family in families:
        sockets += listeners(family, bound)
    for start in range(0, len(sockets), DESCRIPTORS_A_PACKET):
        part = sockets[start : start + DESCRIPTORS_A_PACKET]
        send(
            gateway,
            {"op": "listen", "sockets": [description for description, _ in part]},
            [listening.fileno() for _, listening in part],
        )
    for _, listening in sockets:
        listening.close()


def prove() -> None:
    """Try what the sandbox relies on, from where it will be: OSError if the network is not closed, or leads nowhere.

    At an address of the documentation's (RFC 5737), which no host has: a port that nobody captures is refused at once,
    and one that the gateway captures takes a connection.
    """
    if sorted(name for _, name in socket.if_nameindex()) != ["lo"]:
        raise OSError(errno.ENOTUNIQ, "the namespace has other interfaces than loopback")
    for port, expected in ((_UNCAPTURED_PORT, errno.ECONNREFUSED), (DNS_PORT, 0)):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
            probe.settimeout(_PROBE_TIMEOUT_S)
            found = probe.connect_ex((_NOWHERE, port))
        if found != expected:
            said = os.strerror(found) if found else "it was accepted"
            raise OSError(found, f"a connection to {_NOWHERE}:{port} did not end as it must: {said}")


def configure() -> list[int]:
    """Bring `lo` up and make every address local; returns the address families that there are.

    Engines and kernels may have IPv6 off in a fresh namespace: then its route is refused, and there is no
    IPv6 to capture either.
    """
    netlink.bring_loopback_up()
    with netlink.Netlink() as link:
        link.add_address(socket.AF_INET, standin.v4(standin.LOOPBACK_INDEX))
        link.add_anyip_route(socket.AF_INET)
        try:
            link.add_address(socket.AF_INET6, standin.v6(standin.LOOPBACK_INDEX))
            link.add_anyip_route(socket.AF_INET6)
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EACCES, errno.EPERM, errno.EAFNOSUPPORT, errno.EINVAL):
                return [socket.AF_INET]
            raise
    return [socket.AF_INET, socket.AF_INET6]


def listeners(family: int, bound: list[tuple[int, list[int]]]) -> list[tuple[Description, socket.socket]]:
    """All sockets of one family, bound and listening."""
    v6 = family == socket.AF_INET6
    wildcard, loopback = ("::", "::1") if v6 else ("0.0.0.0", "127.0.0.1")  # noqa: S104 - every address is the gateway's
    wanted = [("tcp", wildcard, port) for port in WILDCARD_PORTS]
    wanted += [
        ("dns-tcp", wildcard, DNS_PORT),
        ("dns-udp", wildcard, DNS_PORT),
        ("proxy", loopback, PROXY_PORT),
    ]
    for index, ports in bound:
        address = standin.v6(index) if v6 else standin.v4(index)
        wanted += [("tcp", address, port) for port in ports]
    return [
        (
            {"kind": kind, "family": 6 if v6 else 4, "address": address, "port": port},
            bind(kind, address, port),
        )
        for kind, address, port in wanted
    ]


def bind(kind: str, address: str, port: int) -> socket.socket:
    """One non-blocking socket: UDP for "dns-udp", a TCP listener for all else.

    Neither SO_REUSEADDR nor SO_REUSEPORT: a program in the sandbox must not be able to share the port.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    datagram = kind == "dns-udp"
    result = socket.socket(
        family, (socket.SOCK_DGRAM if datagram else socket.SOCK_STREAM) | socket.SOCK_CLOEXEC
    )
    result.setblocking(False)
    if family == socket.AF_INET6:
        result.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # bind(2) looks for an interface's address and does not know AnyIP routes, as it does for IPv4.
        result.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
    if datagram:
        # The answer must leave from the address that was asked (ip(7), ipv6(7)).
        if family == socket.AF_INET6:
            result.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            result.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    result.bind((address, port))
    if not datagram:
        result.listen(BACKLOG)
    return result


def _send_namespaces(gateway: socket.socket) -> None:
    descriptors = [os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("user", "net")]
    send(gateway, {"op": "namespace"}, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)


def send(gateway: socket.socket, message: object, descriptors: list[int]) -> None:
    """One message of the control socket (docs/architecture.md)."""
    socket.send_fds(gateway, [json.dumps(message).encode()], descriptors)


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
