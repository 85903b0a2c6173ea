"""A whole gateway in a thread, with the sandbox played by loopback sockets.

The real sandbox dials stand-in addresses in its own namespace. Here every (address, port) that a test dials
gets a listener of its own on 127.0.0.1, and the gateway is told what its sockets "were dialled as".
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from cloister.audit.log import AuditLog, Event
from cloister.gateway.authority import Authority
from cloister.gateway.daemon import Gateway
from cloister.gateway.record import Record
from cloister.gateway.server import GatewayStart
from cloister.gateway.services import Deadlines

DEADLINE_S = 10.0


class FakeLog(AuditLog):
    """Keeps the events, and wakes those who wait for one."""

    def __init__(self) -> None:
        super().__init__("/nonexistent", "test")
        self.events: list[Event] = []
        self._changed = threading.Condition()

    def write(self, event: Event) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def wait(self, wanted: Callable[[Event], bool]) -> Event:
        """The first event that is wanted; fails the test if none comes."""
        found: list[Event] = []

        def there() -> bool:
            found[:] = [event for event in self.events if wanted(event)]
            return bool(found)

        with self._changed:
            if not self._changed.wait_for(there, timeout=DEADLINE_S):
                raise AssertionError(f"no such event among {self.events}")
        return found[0]

    def refusal(self) -> Event:
        return self.wait(lambda event: event.kind == "refuse")


class _Gateway(Gateway):
    dialled: dict[int, tuple[str, int]]

    def destination(self, sock: socket.socket) -> tuple[str, int]:
        return self.dialled[super().destination(sock)[1]]


class Harness:
    """`with Harness(plan) as sandbox: sandbox.dial(...)`."""

    def __init__(
        self,
        plan: dict[str, object],
        *,
        directory: Path,
        deadlines: Deadlines | None = None,
        connections_limit: int = 256,
    ) -> None:
        self.log = FakeLog()
        self.authority = Authority("test")
        self._deadlines = deadlines or Deadlines(head_s=5.0)
        self._limit = connections_limit
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._start = GatewayStart(
            sandbox_id="test",
            plan=plan,
            audit_path=str(directory / "audit.jsonl"),
            control=theirs,
            public_directory=str(directory),
            host_roots=None,
            environ=dict(os.environ),
        )
        self._listeners: dict[tuple[str, str, int], int] = {}
        self._dialled: dict[int, tuple[str, int]] = {}
        self._open: list[socket.socket] = []
        self.gateway: _Gateway
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._started = threading.Event()

    def __enter__(self) -> Harness:
        self._thread.start()
        if not self._started.wait(DEADLINE_S):
            raise AssertionError("the gateway did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sock in self._open:
            sock.close()
        self._ours.close()
        self._thread.join(DEADLINE_S)
        if self._thread.is_alive():
            raise AssertionError("the gateway did not end")
        broken = [event for event in self.log.events if (event.reason or "").startswith("internal error")]
        if broken:
            raise AssertionError(f"internal errors: {broken}")

    def _run(self) -> None:
        async def main() -> None:
            self.gateway = _Gateway(
                self._start,
                self.authority,
                deadlines=self._deadlines,
                connections_limit=self._limit,
                record=Record(self.log),
            )
            self.gateway.dialled = self._dialled
            self._started.set()
            await self.gateway.run()

        asyncio.run(main())

    def call(self, function: Callable[[], object]) -> None:
        """Run something in the gateway's loop, and wait for it."""
        done = threading.Event()

        def run() -> None:
            function()
            done.set()

        self.gateway.loop.call_soon_threadsafe(run)
        if not done.wait(DEADLINE_S):
            raise AssertionError("the gateway's loop hangs")

    def listen(self, kind: str, address: str = "0.0.0.0", port: int = 0) -> int:
        """Pass a listener to the gateway; the loopback port behind which it is."""
        key = (kind, address, port)
        if key not in self._listeners:
            if kind == "dns-udp":
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                sock.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
                sock.bind(("127.0.0.1", 0))
            else:
                sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
            with sock:
                here = sock.getsockname()[1]
                self._dialled[here] = (address, port)
                entry = {"kind": kind, "family": 6 if ":" in address else 4, "address": address, "port": port}
                message = json.dumps({"op": "listen", "sockets": [entry]}).encode()
                socket.send_fds(self._ours, [message], [sock.fileno()])
            self._listeners[key] = here
        return self._listeners[key]

    def plumbed(self) -> dict[str, str]:
        """Say that all sockets have been sent; what the gateway answers."""
        self._ours.send(b'{"op": "plumbed"}')
        return self.message()

    def message(self) -> dict[str, str]:
        self._ours.settimeout(DEADLINE_S)
        answer: dict[str, str] = json.loads(self._ours.recv(65536))
        return answer

    def dial(self, address: str, port: int) -> socket.socket:
        """Connect as the sandbox would to `address` and `port`."""
        return self._connect(self.listen("tcp", address, port))

    def dial_name(self, name: str, port: int) -> socket.socket:
        """Ask DNS for the name, and connect to what it says."""
        return self.dial(self.resolve(name), port)

    def proxy(self) -> socket.socket:
        return self._connect(self.listen("proxy"))

    def dns_tcp(self) -> socket.socket:
        return self._connect(self.listen("dns-tcp"))

    def ask(self, message: bytes) -> bytes:
        """One DNS message over UDP, and its answer."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(DEADLINE_S)
            sock.connect(("127.0.0.1", self.listen("dns-udp")))
            sock.send(message)
            return sock.recv(4096)

    def resolve(self, name: str) -> str:
        """The IPv4 stand-in of a name; fails the test if it is refused."""
        answer = self.ask(question(name))
        if answer[3] & 15 or answer[7] != 1:
            raise AssertionError(f"{name} was refused")
        return socket.inet_ntoa(answer[-4:])

    def trusting(self) -> ssl.SSLContext:
        """A client's context that trusts the sandbox's CA and nothing else."""
        return ssl.create_default_context(cadata=self.authority.pem.decode())

    def _connect(self, port: int) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
        self._open.append(sock)
        return sock


def question(name: str, kind: int = 1, *, edns: bool = False, klass: int = 1, flags: int = 0x0100) -> bytes:
    """A DNS query."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label) + b"\0"
    extra = b"\0\0\x29\x04\xd0\0\0\0\0\0\0" if edns else b""
    head = b"\x12\x34" + flags.to_bytes(2, "big") + b"\0\1\0\0\0\0" + (b"\0\1" if edns else b"\0\0")
    return head + labels + kind.to_bytes(2, "big") + klass.to_bytes(2, "big") + extra


def rule(
    name: str, *, ports: tuple[int, ...] = (80, 443), reach: str = "exact", **more: object
) -> dict[str, object]:
    """A rule as the plan holds it."""
    defaults: dict[str, object] = {
        "id": f"allow {name}",
        "reach": reach,
        "name": name,
        "ports": list(ports),
        "transport": "web",
        "methods": [],
        "paths": [],
        "address_ranges": [],
        "note": "",
    }
    return defaults | more


def plan(
    *grants: dict[str, object],
    hosts: dict[str, tuple[str, int]] | None = None,
    bans: list[dict[str, object]] | None = None,
    credentials: list[dict[str, object]] | None = None,
    push: tuple[str, ...] = (),
    upstream_ca: tuple[str, ...] = (),
) -> dict[str, object]:
    """A compiled plan with these grants; `hosts` pins names to origins."""
    return {
        "policy": {
            "bans": bans or [],
            "grants": list(grants),
            "credentials": credentials or [],
            "passthrough": [],
            "push": {"refs": list(push), "delete": False, "force": False},
        },
        "hosts": {
            name: {"address": address, "port": port} for name, (address, port) in (hosts or {}).items()
        },
        "upstream_ca": list(upstream_ca),
        "bound": [],
        "sandbox": {},
    }


def read_all(sock: socket.socket) -> bytes:
    """Until the end of the stream (a reset counts as one)."""
    data = bytearray()
    try:
        while part := sock.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    return bytes(data)
