"""Loopback, addresses and AnyIP routes of a fresh network namespace, without the `ip` program.

Images and minimal hosts lack iproute2, and two rtnetlink messages take a tenth of its start-up time.
See rtnetlink(7), netdevice(7) and, for local routes to whole prefixes ("AnyIP"), Linux commit ab79ad14a2d5.
"""

from __future__ import annotations

import fcntl
import os
import struct

from cloister.lean import socket

LOOPBACK = 1  # the interface index of `lo`: always the first one of a namespace

_RTM_NEWADDR = 20
_RTM_NEWROUTE = 24
_NLM_F_REQUEST = 0x1
_NLM_F_ACK = 0x4
_NLM_F_EXCL = 0x200
_NLM_F_CREATE = 0x400
_NLMSG_ERROR = 2
_RTA_OIF = 4
_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_IFA_F_NODAD = 0x02
_IFA_F_PERMANENT = 0x80
_RT_TABLE_LOCAL = 255
_RTPROT_BOOT = 3
_RT_SCOPE_HOST = 254
_RTN_LOCAL = 2
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1


def bring_loopback_up() -> None:
    """Set IFF_UP on `lo`. OSError if the caller has no CAP_NET_ADMIN here."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("=16sh14x", b"lo", _IFF_UP))


class Netlink:
    """One rtnetlink socket. A context manager; requests are synchronous."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def add_address(self, family: int, address: str) -> None:
        """Give `lo` one address (a /32 or /128)."""
        packed = socket.inet_pton(family, address)
        flags = _IFA_F_PERMANENT | _IFA_F_NODAD
        body = struct.pack("=BBBBI", family, len(packed) * 8, flags, _RT_SCOPE_HOST, LOOPBACK)
        body += _attribute(_IFA_LOCAL, packed) + _attribute(_IFA_ADDRESS, packed)
        self._request(_RTM_NEWADDR, body, f"add address {address}")

    def add_anyip_route(self, family: int) -> None:
        """`local 0.0.0.0/0 dev lo` or `local ::/0 dev lo`: every address of the family is local."""
        body = struct.pack(
            "=BBBBBBBBI", family, 0, 0, 0, _RT_TABLE_LOCAL, _RTPROT_BOOT, _RT_SCOPE_HOST, _RTN_LOCAL, 0
        )
        body += _attribute(_RTA_OIF, struct.pack("=I", LOOPBACK))
        self._request(_RTM_NEWROUTE, body, "add the AnyIP route")

    def _request(self, kind: int, body: bytes, what: str) -> None:
        self._sequence += 1
        flags = _NLM_F_REQUEST | _NLM_F_ACK | _NLM_F_CREATE | _NLM_F_EXCL
        header = struct.pack("=IHHII", 16 + len(body), kind, flags, self._sequence, 0)
        self._socket.send(header + body)
        answer = self._socket.recv(4096)
        kind, error = struct.unpack_from("=H10xi", answer, 4)
        if kind != _NLMSG_ERROR:
            raise OSError(f"netlink: {what}: unexpected answer of type {kind}")
        if error:
            raise OSError(-error, f"netlink: {what}: {os.strerror(-error)}")


def _attribute(kind: int, value: bytes) -> bytes:
    """An rtattr: length, type, value, padded to four bytes."""
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + bytes(-length % 4)
