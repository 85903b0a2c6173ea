"""The laboratory's DNS: every name of the witnesses' zone has an address, look-alikes and subdomains that of `evil`.

It listens on all addresses, so it is whatever resolver a sandbox may ask. What it is asked, it writes down.
"""

from __future__ import annotations

import itertools
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

_A, _IN = 1, 1
_TTL_S = 60
_NAME_ERROR = 3


def reply(question: bytes, addresses: Callable[[str], str | None]) -> tuple[str, bytes]:
    """The name that was asked for, and the answer: an address, nothing (other types), or that there is no such name."""
    labels, position = [], 12
    while question[position]:
        length = question[position]
        labels.append(question[position + 1 : position + 1 + length].decode("latin-1"))
        position += 1 + length
    end = position + 5
    (kind,) = struct.unpack(">H", question[position + 1 : position + 3])
    name = ".".join(labels).lower()
    found = addresses(name) if kind == _A else addresses(name) and ""
    record = b""
    if found:
        record = b"\xc0\x0c" + struct.pack(">HHIH4s", _A, _IN, _TTL_S, 4, socket.inet_aton(found))
    flags = 0x8180 | (0 if found is not None else _NAME_ERROR)
    head = question[:2] + struct.pack(">HHHHH", flags, 1, 1 if record else 0, 0, 0)
    return name, head + question[12:end] + record


def addresses(known: Mapping[str, Sequence[str]], zone: str, others: str) -> Callable[[str], str | None]:
    """`known` names as they are, by turns; all else in or around the zone as `others`; nothing else exists."""
    turns = {name: itertools.cycle(places) for name, places in known.items()}

    def find(name: str) -> str | None:
        if name in turns:
            return next(turns[name])
        return others if name.endswith(zone) else None

    return find


class NameServer:
    """Sockets are bound where it is made; `start` makes the threads."""

    def __init__(self, find: Callable[[str], str | None], note: Callable[[bytes], None]) -> None:
        self._find, self._note = find, note
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("0.0.0.0", 53))
        self._tcp = socket.create_server(("0.0.0.0", 53))

    def start(self) -> None:
        for serve in (self._datagrams, self._connections):
            threading.Thread(target=serve, daemon=True).start()

    def close(self) -> None:
        self._udp.close()
        self._tcp.close()

    def _answer(self, question: bytes) -> bytes:
        name, answer = reply(question, self._find)
        self._note(f"DNS {name}".encode())
        return answer

    def _datagrams(self) -> None:
        while True:
            try:
                question, sender = self._udp.recvfrom(4096)
            except OSError:
                return
            with suppress(OSError, IndexError, struct.error):
                self._udp.sendto(self._answer(question), sender)

    def _connections(self) -> None:
        while True:
            try:
                connection = self._tcp.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(5)
        with connection, suppress(OSError, IndexError, struct.error):
            answer = self._answer(connection.recv(4096)[2:])
            connection.sendall(struct.pack(">H", len(answer)) + answer)
