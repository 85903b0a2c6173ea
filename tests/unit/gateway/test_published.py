"""Published ports in a whole gateway. The connector runs in a thread, so "the sandbox" is this machine's loopback."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister.audit.log import Event
from cloister.gateway import limits
from cloister.gateway.allowance import Allowance
from cloister.gateway.connector import Connector
from cloister.gateway.offload import Offload
from cloister.gateway.published import Published
from cloister.gateway.record import Record
from cloister.network import forward
from cloister.policy.published import GATEWAY_PORTS
from tests.unit.gateway.harness import DEADLINE_S, FakeLog, Harness, plan, read_all

BODY = os.urandom(1 << 20) * 64


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number: int = server.getsockname()[1]
    return number


class Sandbox(Harness):
    """A gateway with a connector. `own_end`: the port that its IPv4 sockets are bound to."""

    def __init__(self, compiled: dict[str, object], *, directory: Path, own_end: int = 0) -> None:
        super().__init__(compiled, directory=directory)
        self.own_end = own_end

    def __enter__(self) -> Sandbox:
        super().__enter__()
        self._peer, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        socket.send_fds(self._ours, [b'{"op": "connector"}'], [theirs.fileno()])
        theirs.close()
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def _serve(self) -> None:
        with self._peer:
            while self.own_end and (wanted := self._peer.recv(16)):
                with socket.socket(forward.FAMILIES[wanted]) as made:
                    made.setblocking(False)
                    if wanted == b"4":
                        made.bind(("127.0.0.1", self.own_end))
                    socket.send_fds(self._peer, [forward.OK], [made.fileno()])
            forward.serve(self._peer)

    def publish(self, port: int) -> int:
        """Publish a port of the sandbox; the port of this machine."""
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
            here: int = listener.getsockname()[1]
            entry = {"kind": "publish", "family": 4, "address": "127.0.0.1", "port": port}
            socket.send_fds(
                self._ours, [json.dumps({"op": "listen", "sockets": [entry]}).encode()], [listener.fileno()]
            )
        return here

    def reach(self, here: int) -> socket.socket:
        return self._connect(here)

    def event(self) -> Event:
        return self.log.wait(lambda event: event.kind == "publish")


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with Sandbox(plan(), directory=tmp_path) as running:
        yield running


@pytest.fixture(params=["127.0.0.1", "::1"])
def server(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """A server in the sandbox, on one of its loopback addresses alone."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    try:
        listener = socket.create_server((request.param, 0), family=family)
    except OSError:
        pytest.skip("no IPv6 here")
    listener.settimeout(DEADLINE_S)
    with listener:
        yield listener


def test_a_server_on_either_loopback_is_reached(sandbox: Sandbox, server: socket.socket) -> None:
    here = sandbox.publish(server.getsockname()[1])
    client = sandbox.reach(here)
    inside, _ = server.accept()
    with inside:
        inside.sendall(b"who is there?")  # a server that speaks first
        assert client.recv(100) == b"who is there?"
        client.sendall(b"me")
        assert inside.recv(100) == b"me"
        client.shutdown(socket.SHUT_WR)
        assert inside.recv(100) == b"", "a half-close is passed on"
        inside.sendall(b"and still")
        assert client.recv(100) == b"and still"
    assert client.recv(100) == b""
    event = sandbox.event()
    assert (event.port, event.address, event.protocol) == (
        server.getsockname()[1],
        server.getsockname()[0],
        "tcp",
    )
    assert (event.sent_bytes, event.received_bytes) == (22, 2)
    assert event.reason is None


def test_64_mib_are_intact_both_ways_at_once(sandbox: Sandbox, server: socket.socket) -> None:
    client = sandbox.reach(sandbox.publish(server.getsockname()[1]))
    inside, _ = server.accept()
    found: dict[str, str] = {}

    def send(sock: socket.socket) -> None:
        sock.sendall(BODY)
        sock.shutdown(socket.SHUT_WR)

    def receive(name: str, sock: socket.socket) -> None:
        found[name] = hashlib.sha256(read_all(sock)).hexdigest()

    jobs = [
        threading.Thread(target=target, args=arguments)
        for target, arguments in (
            (send, (client,)), (send, (inside,)), (receive, ("client", client)), (receive, ("inside", inside)),
        )
    ]  # fmt: skip
    client.settimeout(60)
    inside.settimeout(60)
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(60)
    inside.close()
    assert found == dict.fromkeys(("client", "inside"), hashlib.sha256(BODY).hexdigest())


def test_a_client_that_does_not_read_stops_the_server(sandbox: Sandbox, server: socket.socket) -> None:
    client = sandbox.reach(sandbox.publish(server.getsockname()[1]))
    inside, _ = server.accept()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    inside.settimeout(0.5)
    sent = 0
    with pytest.raises(TimeoutError):
        while True:
            sent += inside.send(BODY[: 1 << 20])
    assert sent < 32 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10
    client.close()
    inside.close()


def test_without_a_server_the_connection_is_reset_and_written_down(sandbox: Sandbox) -> None:
    port = free_port()
    here = sandbox.publish(port)
    started = time.monotonic()
    with pytest.raises(ConnectionResetError):  # perhaps while it still connects
        sandbox.reach(here).recv(1)
    assert time.monotonic() - started < 2
    assert sandbox.event().reason == f"nothing listens on port {port} in the sandbox"


def test_a_port_never_connects_with_itself(tmp_path: Path) -> None:
    """TCP's simultaneous open: from an ephemeral port, the kernel may choose the very port that is dialled."""
    with Sandbox(plan(), directory=tmp_path, own_end=free_port()) as sandbox:
        here = sandbox.publish(sandbox.own_end)
        with pytest.raises(ConnectionResetError):
            sandbox.reach(here).recv(1)
        assert "nothing listens" in str(sandbox.event().reason)


def test_a_reset_inside_is_a_reset_outside(sandbox: Sandbox, server: socket.socket) -> None:
    client = sandbox.reach(sandbox.publish(server.getsockname()[1]))
    inside, _ = server.accept()
    inside.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    inside.close()
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_nothing_passes_while_the_log_cannot_be_written(sandbox: Sandbox, server: socket.socket) -> None:
    here = sandbox.publish(server.getsockname()[1])
    sandbox.log.failure = OSError(28, "No space left on device")
    with pytest.raises(ConnectionResetError):  # perhaps while it still connects
        sandbox.reach(here).recv(1)
    server.settimeout(0.1)
    with pytest.raises(TimeoutError):
        server.accept()
    sandbox.log.failure = None


def test_a_connector_that_dies_is_started_anew(tmp_path: Path) -> None:
    starts: list[socket.socket] = []

    def start() -> tuple[socket.socket, None]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        starts.append(theirs)
        if len(starts) > 1:  # the first one dies at once
            threading.Thread(target=forward.serve, args=(theirs,), daemon=True).start()
        else:
            theirs.close()
        return ours, None

    async def main() -> None:
        connector = Connector(Offload())
        with pytest.raises(OSError, match="not known"):
            await connector.make(socket.AF_INET)
        connector.start = start
        with pytest.raises(OSError):
            await connector.make(socket.AF_INET)
        many = await asyncio.gather(*(connector.make(socket.AF_INET) for _ in range(20)))
        assert len(starts) == 2
        for sock in many:
            sock.close()
        connector.close()
        connector.close()

    asyncio.run(main())


def test_a_connector_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its late answer must not become another one's."""
    monkeypatch.setattr("cloister.gateway.connector.ANSWER_S", 0.2)
    ends: list[socket.socket] = []

    def start() -> tuple[socket.socket, None]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ends.append(theirs)
        return ours, None

    async def main() -> None:
        connector = Connector(Offload())
        connector.start = start
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await connector.make(socket.AF_INET)

    asyncio.run(main())
    assert len(ends) == 2
    for end in ends:
        assert end.recv(10) == b"4"
        assert end.recv(10) == b"", "the gateway has closed its end"
        end.close()


@pytest.mark.parametrize("port", sorted(GATEWAY_PORTS))
def test_the_gateways_own_ports_are_never_published(port: int) -> None:
    async def main() -> None:
        published = Published(
            connector=Connector(Offload()), record=Record(FakeLog()), allowance=Allowance(), limit=4
        )
        with socket.create_server(("127.0.0.1", 0)) as listener:
            with pytest.raises(ValueError, match="the gateway's"):
                published.add(listener, port)
            assert listener.fileno() == -1, "nobody may take it for one that is served"
        await published.close()

    asyncio.run(main())


def test_beyond_the_limit_connections_wait(
    tmp_path: Path, server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PUBLISHED_LIMIT", 4)
    with Sandbox(plan(), directory=tmp_path) as sandbox:
        here = sandbox.publish(server.getsockname()[1])
        clients = [sandbox.reach(here) for _ in range(6)]
        inside = [server.accept()[0] for _ in range(4)]
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.accept()
        server.settimeout(DEADLINE_S)
        assert "connections are open" in str(sandbox.log.wait(lambda event: event.kind == "alarm").text)
        inside.pop().close()
        clients[3].close()
        inside += [server.accept()[0]]
        for one in inside:
            one.close()


def test_descriptors_are_set_aside_only_where_a_port_is_published() -> None:
    without, publishing = (limits.connections(publishing=flag) for flag in (False, True))
    assert publishing <= without
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if without < 16384:
        assert without - publishing == min(limits.PUBLISHED_LIMIT, hard // 16)
