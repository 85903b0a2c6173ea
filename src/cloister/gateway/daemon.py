"""Put the gateway's parts together and run them until the session closes the control socket.

Rule 1: whatever goes wrong in one part ends that part only; the process ends when the control socket does.
Rule 2: at the end, open connections get their audit lines, within CLOSE_S.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from cloister.audit.log import AuditLog, Event
from cloister.gateway import authority as ca
from cloister.gateway import connection, control, judge, limits, proxy, truststore
from cloister.gateway.accept import Acceptor
from cloister.gateway.allowance import Allowance
from cloister.gateway.authority import Authority
from cloister.gateway.connector import Connector, Started
from cloister.gateway.dns_server import DnsServer
from cloister.gateway.http.pool import Pool
from cloister.gateway.leaves import LeafCache
from cloister.gateway.names import NameTable
from cloister.gateway.offload import Offload
from cloister.gateway.on_demand import Bind, Binder
from cloister.gateway.record import Record
from cloister.gateway.resolver import Resolver
from cloister.gateway.server import GatewayStart, upstream_ca
from cloister.gateway.services import Deadlines, Services
from cloister.gateway.upstream import Dialler, answers_of, pins_of
from cloister.gateway.vault import Vault
from cloister.gateway.wire import SocketWire
from cloister.network import evict
from cloister.policy.codec import parse_policy
from cloister.policy.names import parse_host
from cloister.types import Credential, Host

if TYPE_CHECKING:
    from cloister.gateway.control_server import ControlServer
    from cloister.gateway.lure import Lure
    from cloister.gateway.published import Published
    from cloister.sshagent.server import AgentServer

CLOSE_S = 0.8


def run(start: GatewayStart, authority: Authority, received: tuple[control.Message, ...]) -> int:
    """Serve until the session ends, beginning with the messages that have been `received`. Blocks."""
    search_nowhere()
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(_main(start, authority, received))
    finally:
        loop.close()
    return 0


def search_nowhere() -> None:
    """No search list for this process's look-ups (resolv.conf(5)). What is judged is what is dialled: with one, a
    granted name that does not exist would become another, such as `api.example.com.corp.example.net`.
    """
    os.environ["LOCALDOMAIN"] = "."


async def _main(start: GatewayStart, authority: Authority, received: tuple[control.Message, ...]) -> None:
    await Gateway(start, authority).run(received)


class Gateway:
    """One sandbox's gateway. `destination` says what a socket was dialled as (tests replace it)."""

    def __init__(
        self,
        start: GatewayStart,
        authority: Authority,
        *,
        deadlines: Deadlines | None = None,
        connections_limit: int | None = None,
        record: Record | None = None,
    ) -> None:
        self._start = start
        self._authority = authority
        self.ended = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        policy = parse_policy(start.plan["policy"])
        bound = _bound(start.plan)
        home = start.home
        self.record = record or Record(
            home.log if home else AuditLog(start.audit_path, start.sandbox_id, on_failure=self._log_failed)
        )
        self._offload = Offload()
        self.names = NameTable(bound)
        dialler = Dialler(
            pins=pins_of(start.plan),
            offload=self._offload,
            environ=start.environ,
            home=start.home,
            answers=answers_of(start.plan),
        )
        further_roots = upstream_ca(start.plan)
        lured = _lure(start.plan)
        self.services = Services(
            policy=policy,
            dialler=dialler,
            pool=Pool(
                dialler, offload=self._offload, roots=start.host_roots, further_roots=tuple(further_roots)
            ),
            vault=Vault(
                policy.credentials,
                offload=Offload(
                    8, wait_s=30.0
                ),  # its own: a source may hold a thread for long, and names must resolve
                environ=start.environ,
                ask=self._ask,
                tell=lambda text: control.send(start.control, "tell", text),
                upstream_ca=tuple(further_roots),
                untrusted=start.untrusted,
                fetch=home.fetch if home else None,
            ),
            watched={
                **{one.name: one.placeholder.encode() for one in policy.credentials},
                **(lured.needles if lured else {}),
            },
            lure=lured,
            tell=lambda text: control.send(start.control, "alarm", text),
            record=self.record,
            leaves=LeafCache(authority),
            allowance=Allowance(),
            deadlines=deadlines or Deadlines(),
            released=self._released,
        )
        self._acceptor = Acceptor(
            record=self.record,
            limit=connections_limit or limits.connections(publishing=_publishes(start.plan)),
            spliced=lambda: len(self.services.splices),
        )
        self.binder = Binder(
            policy=policy,
            bound=bound,
            offload=self._offload,
            listen=self._listen_tcp,
            sockets_limit=limits.on_demand(),
        )
        self._resolver = Resolver(
            policy=policy, names=self.names, record=self.record, v6=False, answers_all=lured is not None
        )
        self.binder.v6 = False
        self._dns = DnsServer(self._resolver, self.binder)
        self._datagram_sockets: list[socket.socket] = []
        self._background: asyncio.Task[None] | None = None
        self._control_server: ControlServer | None = None
        self._agent: AgentServer | None = None
        self._published: Published | None = None
        self.connector = Connector(self._offload)
        self._network: int | None = None  # descriptor of the sandbox's network namespace
        self._orphaned = False  # the session died

    async def run(self, received: tuple[control.Message, ...] = ()) -> None:
        """Serve until the control socket ends."""
        control_socket = self._start.control
        control_socket.setblocking(False)
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._unhandled)
        loop.add_reader(control_socket.fileno(), self._control_readable)
        try:
            for message in received:
                self._act(message)
            await self.ended.wait()
        finally:
            loop.remove_reader(control_socket.fileno())
            await self._close()

    def _unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        if not isinstance(error, OSError):
            fault = error if isinstance(error, BaseException) else RuntimeError()
            self.record.internal_error(fault, where=f"event loop: {context.get('message')}")

    def _control_readable(self) -> None:
        """Act on what the session or the plumber says."""
        try:
            message = control.receive(self._start.control)
        except BlockingIOError:
            return
        except ConnectionResetError:  # it went with something of ours unread
            message = control.Ended(told=False)
        except (OSError, ValueError, KeyError, control.ProtocolError) as error:
            self.record.internal_error(error, where="control socket")
            self.ended.set()
            return
        self._act(message)

    def _act(self, message: control.Message) -> None:
        match message:
            case control.Listen(sockets=sockets):
                for passed in sockets:
                    self._listen(passed)
            case control.Namespace(user=user, network=network):
                self._network = network
                self.binder.bind_in_namespace = _binder_in(user, network)
                self.connector.start = _connector_in(user, network)
            case control.Holder(network=network, line=line):
                self._network = network
                self.binder.bind_in_namespace = _binder_through(line)
            case control.Connector(sock=sock):
                self.connector.adopt(sock)
            case control.Plumbed():
                control.send(self._start.control, "ready")
                self._after_start()
            case control.Ping():
                control.send(self._start.control, "pong")
            case control.Answer(name=name, allowed=allowed):
                self.services.vault.decide(name, allowed=allowed)
            case control.Asked(number=number, line=line):
                from cloister.gateway.control_server import answer  # only where somebody asks

                control.reply(self._start.control, number, answer(self.services.vault, line))
            case control.Ended(told=told):
                self._orphaned = not told
                self.ended.set()

    async def _ask(self, credential: Credential, purpose: str) -> bool:
        """Put the question to the session; the answer comes by `Vault.decide`, which cancels this."""
        text = (
            f'may requests of this sandbox use the credential "{credential.name}"? The first is for {purpose}'
        )
        self.record.event(Event(kind="confirm", text=f'asked for "{credential.name}", for {purpose}'))
        control.send(self._start.control, "ask", text, name=credential.name)
        try:
            answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            return await answer
        finally:
            control.send(self._start.control, "settled", name=credential.name)

    def destination(self, sock: socket.socket) -> tuple[str, int]:
        """The address and port that the sandbox dialled."""
        address, port = sock.getsockname()[:2]
        return str(address), int(port)

    async def _close(self) -> None:
        """End everything, and write the lines that are owed."""
        if self._orphaned and self._network is not None:
            evict.evict(self._network)
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._acceptor.close()
                if self._published is not None:
                    await self._published.close()
        except TimeoutError:
            pass
        self.connector.close()
        for sock in self._datagram_sockets:
            asyncio.get_running_loop().remove_reader(sock.fileno())
            sock.close()
        for splice in list(self.services.splices):
            splice.close()
        self.services.pool.close()
        self.services.departures.close()
        self.services.vault.close()
        for server in (self._control_server, self._agent):
            if server is not None:
                await server.close()
        self.record.close()

    def _listen(self, passed: control.Passed) -> None:
        if passed.family == 6 and passed.kind != "publish":
            self._resolver.v6 = self.binder.v6 = True
        match passed.kind:
            case "tcp":
                self._listen_tcp(passed.sock)
            case "proxy":
                self._acceptor.add(passed.sock, lambda wire: proxy.serve(self.services, wire))
            case "dns-tcp":
                self._acceptor.add(passed.sock, self._dns.serve_tcp)
            case "dns-udp":
                self._datagram_sockets.append(passed.sock)
                self._dns.add(passed.sock)
            case "ssh-agent":
                from cloister.gateway import ssh  # only where an agent is forwarded

                self._agent = ssh.start(
                    passed.sock,
                    self._start.plan.get("ssh"),
                    self.services,
                    environ=self._start.environ,
                    tell=lambda text: control.send(self._start.control, "tell", text),
                )
            case "publish":
                self._publish(passed)
            case kind:
                passed.sock.close()
                self.record.internal_error(ValueError(), where=f"control socket: kind {kind!r}")

    def _publish(self, passed: control.Passed) -> None:
        if self._published is None:
            from cloister.gateway import published  # only where a port is published

            self._published = published.Published(
                connector=self.connector,
                record=self.record,
                allowance=self.services.allowance,
                limit=limits.published(),
            )
        self._published.add(passed.sock, passed.port)

    def _listen_tcp(self, listener: socket.socket) -> None:
        self._acceptor.add(listener, self._serve_tcp)

    async def _serve_tcp(self, wire: SocketWire) -> None:
        address, port = self.destination(wire.sock)
        asked = judge.dialled(self.names.host(address), address, port)
        await connection.transparent(self.services, wire, asked)

    def _released(self) -> None:
        self._acceptor.released()

    def _log_failed(self, error: OSError) -> None:
        text = f"the audit log cannot be written ({error.strerror}): nothing new leaves the sandbox"
        control.send(self._start.control, "alarm", text)

    def _after_start(self) -> None:
        if (self.services.watched or self._agent) and self._start.control_path:
            from cloister.gateway.control_server import ControlServer, answers  # only where something may ask

            self._control_server = ControlServer(self._start.control_path, answers(self.services.vault))
            self._control_server.start()
        sandbox = self._start.plan.get("sandbox")
        if isinstance(sandbox, dict) and sandbox.get("java") is True:
            self._background = asyncio.get_running_loop().create_task(self._write_truststore())

    async def _write_truststore(self) -> None:
        path = os.path.join(self._start.public_directory, "truststore.p12")
        try:
            await self._offload.call(
                lambda: truststore.make(
                    ca.bundle(self._authority, self._start.host_roots, upstream_ca(self._start.plan)), path
                )
            )
        except Exception as error:  # Java programs then do without; everything else works
            self.record.internal_error(error, where="Java truststore")


def _lure(plan: dict[str, object]) -> Lure | None:
    if "watch" not in plan:
        return None
    from cloister.gateway import lure  # only for an audit

    return lure.of_plan(plan)


def _binder_in(user: int, network: int) -> Bind:
    def bind(wanted: list[tuple[str, int]]) -> list[socket.socket]:
        from cloister.network import enter  # starts a program: only where a pattern names a port

        return enter.bind_later(user, network, wanted)

    return bind


def _binder_through(line: socket.socket) -> Bind:
    lock = threading.Lock()  # names are bound in threads, and the line is one

    def bind(wanted: list[tuple[str, int]]) -> list[socket.socket]:
        from cloister.network import holder  # only where a pattern names a port

        with lock:
            return holder.bind_later(line, wanted)

    return bind


def _connector_in(user: int, network: int) -> Callable[[], Started]:
    def start() -> Started:
        from cloister.network import forward  # starts a program: only where a port is published

        return forward.start(user, network)

    return start


def _bound(plan: dict[str, object]) -> dict[Host, frozenset[int]]:
    entries = plan.get("bound", [])
    if not isinstance(entries, list):
        raise TypeError('"bound" in the plan is not a list')
    return {parse_host(entry["host"]): frozenset(entry["ports"]) for entry in entries}


def _publishes(plan: dict[str, object]) -> bool:
    sandbox = plan.get("sandbox")
    return isinstance(sandbox, dict) and bool(sandbox.get("ports") or sandbox.get("detect_ports"))
