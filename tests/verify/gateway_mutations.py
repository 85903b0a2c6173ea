"""Weakened gateways: each decides, parses or waits in a way that it must not. See mutations.py."""

from __future__ import annotations

import asyncio
import os
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import h2.config
import h2.frame_buffer
import h2.stream

from cloister.config import collisions, files
from cloister.config import compile as compile_
from cloister.credentials import inject
from cloister.errors import ConfigurationError
from cloister.gateway import clienthello, daemon, forward, handshake, judge, proxy, relay, tls, use
from cloister.gateway.http import body, h1_client, h2_connection, h2_heads, h2_server
from cloister.gateway.request import Request
from cloister.gateway.tls import TlsWire
from cloister.gateway.upstream import Dialler, UpstreamError
from cloister.network import plumb
from cloister.policy.decide import Splice
from cloister.policy.names import parse_host
from cloister.runtimes import embedded
from cloister.secret import Secret
from cloister.secrets import file as secret_file
from cloister.secrets.source import Value
from cloister.session import live
from cloister.session.wait import Waiter
from cloister.verify import passes
from cloister.verify.witnesses import Witnesses
from tests.verify.mutations import Patch, _rule, mutation


@mutation("unguarded")
def unguarded(patch: Patch, _: Path) -> None:
    """Whatever a name resolves to is dialled. (Of it all only this host's loopback: nothing may leave a test.)"""

    def all_of(host: object, addresses: tuple[str, ...], _rule: object) -> tuple[str, ...]:
        loopback = tuple(one for one in addresses if one.startswith("127."))
        if not loopback:
            raise UpstreamError(f"{host} is elsewhere")
        return loopback

    patch.setattr(Dialler, "_guarded", staticmethod(all_of))


@mutation("nested-tunnel")
def nested_tunnel(patch: Patch, _: Path) -> None:
    """CONNECT leads anywhere from within a connection that has a destination."""
    original = Request._serve

    async def serving(self: Any) -> None:
        if self._head.method != "CONNECT":
            await original(self)
            return
        host = parse_host(self._head.untrusted_authority.rpartition(":")[0])
        upstream = await self._services.dialler.dial(host, 443, _rule(host))
        wire = self._down._wire
        await wire.send(b"HTTP/1.1 200 OK\r\n\r\n")
        with upstream.sock:
            while wire.buffer or await wire.more():
                await asyncio.get_running_loop().sock_sendall(upstream.sock, bytes(wire.buffer))
                wire.buffer.clear()

    patch.setattr(Request, "_serve", serving)


@mutation("lenient-hellos")
def lenient_hellos(patch: Patch, _: Path) -> None:
    """The first host name that stands anywhere in what comes is taken, and every hello is passed on."""
    patch.setattr(judge, "hello", lambda _policy, asked, _hello: Splice(rule=_rule(asked.host)))

    def first_name(untrusted: bytes) -> clienthello.ClientHello:
        return clienthello.ClientHello(
            untrusted_server_name=None, encrypted=False, alpn=(), length=len(untrusted)
        )

    patch.setattr(clienthello, "parse", first_name)

    async def follow(client: Any, upstream: Any, _hello: Any, *, deadline_s: float) -> None:
        async with asyncio.timeout(deadline_s):
            await upstream.send(bytes(client.buffer))
            client.buffer.clear()

    patch.setattr(handshake, "follow", follow)


@mutation("bound-to-all")
def bound_to_all(patch: Patch, _: Path) -> None:
    """Every credential is bound to every host."""

    def everything(policy: Any, _host: object, _port: int) -> tuple[use.Use, ...]:
        return tuple(
            use.Use(credential=one, binding=one.bindings[0])
            for one in policy.credentials
            if not one.bindings[0].paths
        )

    patch.setattr(use, "bound", everything)


@mutation("follows-redirects")
def follows_redirects(patch: Patch, _: Path) -> None:
    """The gateway goes where a redirect leads, with the credential."""
    ports: list[int] = []
    original = forward.Forward._deliver

    def known() -> Witnesses:
        found = Witnesses()
        ports[:] = [found.https.getsockname()[1]]
        return found

    def fetch(location: str, value: bytes) -> None:
        host, _, path = location.removeprefix("https://").partition("/")
        context = ssl._create_unverified_context()
        with (
            socket.create_connection(("127.0.0.1", ports[0])) as plain,
            context.wrap_socket(plain, server_hostname=host) as stream,
        ):
            stream.sendall(
                f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: ".encode() + value + b"\r\n\r\n"
            )
            stream.recv(100)

    async def following(self: Any, upstream: Any, head: Any) -> None:
        for name, location in head.headers:
            if name == b"location":
                values = [one.secret.reveal() for one in self._values.values()]
                await asyncio.to_thread(fetch, location.decode(), b" ".join(values))
        await original(self, upstream, head)

    patch.setattr(passes, "Witnesses", known)
    patch.setattr(forward.Forward, "_deliver", following)


@mutation("any-value")
def any_value(patch: Patch, _: Path) -> None:
    """Whatever a file holds is the value, whoever can read it and wherever it leads, and goes where it is put."""

    def fetch(source: Any, context: Any) -> Value:
        descriptor = os.open(source.argument, os.O_RDONLY | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            return Value(secret=Secret(context.name, (file.read() or b"").removesuffix(b"\n")))

    patch.setattr(secret_file, "fetch", fetch)
    patch.setattr(inject, "_visible", lambda value: value.reveal())


@mutation("unverified")
def unverified(patch: Patch, _: Path) -> None:
    """Upstreams' certificates are not looked at."""
    original = tls.client_context

    def trusting(*arguments: Any) -> ssl.SSLContext:
        context = original(*arguments)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context

    patch.setattr(tls, "client_context", trusting)


@mutation("lenient-bodies")
def lenient_bodies(patch: Patch, _: Path) -> None:
    """A chunk's size is what an integer could be read from, and where a stream ends, its body does."""

    async def line(self: body.Body) -> bytes:
        while b"\n" not in self._wire.buffer and await self._wire.more():
            continue
        first = bytes(self._wire.buffer).partition(b"\n")
        del self._wire.buffer[: len(first[0]) + len(first[1])]
        return first[0].strip()

    async def chunk(self: body.Body) -> bytes:
        text = await line(self) or await line(self)
        with suppress(ValueError):
            size = abs(int(text.partition(b";")[0].split(b" ")[0], 16)) & 0xFFFF
            while len(self._wire.buffer) < size and await self._wire.more():
                continue
            data = bytes(self._wire.buffer[:size])
            del self._wire.buffer[:size]
            if data:
                return data
        self.ended = True
        return b""

    def end(self: body.Body) -> bytes:
        self.ended = True
        return b""

    patch.setattr(body.Body, "_read_chunked", chunk)
    patch.setattr(body.Body, "_end_of_stream", end)
    patch.setattr(h1_client.H1Upstream, "send_head", _undeclared(h1_client.H1Upstream.send_head))


def _undeclared(original: Any) -> Any:
    """Send every body in chunks, so that a short one ends like any other."""

    async def send_head(self: Any, request: Any, *, ended: bool) -> None:
        await original(self, replace(request, length=None) if request.length else request, ended=ended)

    return send_head


@mutation("forwards-trailers")
def forwards_trailers(patch: Patch, _: Path) -> None:
    """Whatever comes behind a body goes upstream."""
    original = h1_client.H1Upstream.finish

    async def finish(self: Any, trailers: Any = ()) -> None:
        if self._chunked and trailers:
            self._held += body.last_chunk(trailers)
            self._chunked = False
        await original(self)

    patch.setattr(h1_client.H1Upstream, "finish", finish)


@mutation("lenient-h2")
def lenient_h2(patch: Patch, _: Path) -> None:
    """Heads of HTTP/2 are taken as they come, and of what is there twice, the last."""
    config = h2.config.H2Configuration(
        client_side=False, header_encoding=None, validate_inbound_headers=False,
        validate_outbound_headers=False, normalize_outbound_headers=False,
    )  # fmt: skip
    anything = re.compile(rb"[\s\S]*")
    patch.setattr(h2_server, "_CONFIG", config)
    patch.setattr(h2_heads, "checked", lambda untrusted: tuple((bytes(a), bytes(b)) for a, b in untrusted))
    patch.setattr(h2_heads, "_authority", lambda pseudo, _hosts: pseudo.get(b":authority", b""))
    patch.setattr(h2_heads, "_PRINTABLE", anything)
    patch.setattr(h2_heads, "_METHOD", anything)
    patch.setattr(h2_heads, "_METHOD_LIMIT", 1000)
    patch.setattr(h2_heads, "length", lambda _headers: None)
    for name in ("_initialize_content_length", "_track_content_length"):
        patch.setattr(h2.stream.H2Stream, name, lambda *_: None)


@mutation("endures-floods")
def endures_floods(patch: Patch, _: Path) -> None:
    """Nobody counts what costs more to take than to send."""
    patch.setattr(h2_connection.Connection, "_count", lambda *_: None)
    patch.setattr(h2.frame_buffer, "CONTINUATION_BACKLOG", 10**9)


@mutation("any-upgrade")
def any_upgrade(patch: Patch, _: Path) -> None:
    """A 101 is a 101: from then on bytes flow."""

    async def switch(downstream: Any, upstream: Any, *_: Any, **__: Any) -> None:
        client, origin = await downstream.switch(b"none", ()), upstream.switch()
        while data := await client.read():
            await origin.write(data)

    patch.setattr(relay, "switch", switch)


@mutation("one-at-a-time")
def one_at_a_time(patch: Patch, _: Path) -> None:
    """A connection is served when the one before it has ended."""
    lock = asyncio.Lock()

    @asynccontextmanager
    async def turn() -> AsyncIterator[None]:
        async with lock:
            yield

    serve_tcp, serve_proxy = daemon.Gateway._serve_tcp, proxy.serve

    async def tcp(self: Any, wire: Any) -> None:
        async with turn():
            await serve_tcp(self, wire)

    async def explicit(services: Any, wire: Any) -> None:
        async with turn():
            await serve_proxy(services, wire)

    patch.setattr(daemon.Gateway, "_serve_tcp", tcp)
    patch.setattr(proxy, "serve", explicit)


@mutation("busy-reader")
def busy_reader(patch: Patch, _: Path) -> None:
    """Who reads a head that is begun reads on at once, and nobody else has a turn (for some seconds, in a test)."""
    original, until = TlsWire.more, [0.0]

    async def more(self: TlsWire) -> bool:
        if self.buffer:
            until[0] = until[0] or time.monotonic() + 8
            while time.monotonic() < until[0]:
                continue
        return await original(self)

    patch.setattr(TlsWire, "more", more)


@mutation("whole-answers")
def whole_answers(patch: Patch, _: Path) -> None:
    """An answer is passed on when all of it has come."""

    async def parts(self: Any, upstream: Any, incoming: Any) -> None:
        whole: list[bytes] = []
        while part := await upstream.read():
            whole += incoming.feed(part)
        await self.downstream.write(b"".join(whole) + incoming.end())

    patch.setattr(forward.Forward, "_parts", parts)


@mutation("second-way-out")
def second_way_out(patch: Patch, _: Path) -> None:
    """Who takes the sandbox's connections besides the gateway: what it leaves, the session answers, on to the origin."""
    send, run_live, launch = plumb.send, live.run, embedded.launch
    plans: list[Any] = []
    lines: list[socket.socket] = []  # made by the session itself: what was open before is closed in it

    def sending(gateway: Any, message: Any, descriptors: Any) -> None:
        for entry, descriptor in zip(message.get("sockets", ()), descriptors, strict=False):
            if (entry["kind"], entry["family"], entry["port"]) == ("tcp", 4, 80):
                socket.send_fds(lines[1], [b"x"], [descriptor])
        send(gateway, message, descriptors)

    def running(start: Any) -> int:
        plans.append(start.plan)
        lines[:] = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return run_live(start)

    def launching(*arguments: Any) -> Any:
        found = launch(*arguments)
        ports = [pin["port"] for pin in plans[-1]["hosts"].values()]
        if ports:
            threading.Thread(target=_leftovers, args=(lines[0], ports[0]), daemon=True).start()
        return found

    patch.setattr(plumb, "send", sending)
    patch.setattr(live, "run", running)
    patch.setattr(embedded, "launch", launching)
    patch.setattr(Waiter, "_gateway_died", lambda *_: time.sleep(0.05))


def _leftovers(line: socket.socket, port: int) -> None:
    _, (descriptor,), _, _ = socket.recv_fds(line, 1, 1)
    listener = socket.socket(fileno=descriptor)
    listener.setblocking(True)
    while True:
        select.select([listener], [], [])
        time.sleep(0.3)
        if not select.select([listener], [], [], 0)[0]:
            continue  # the gateway has taken it
        with suppress(OSError), listener.accept()[0] as client:
            client.settimeout(5)
            with socket.create_connection(("127.0.0.1", port)) as origin:
                origin.sendall(client.recv(4096))
                client.sendall(origin.recv(4096))


@mutation("lenient-configuration")
def lenient_configuration(patch: Patch, _: Path) -> None:
    """Of a configuration that cannot be read, nothing counts, and the sandbox starts with what is left."""
    original = compile_.compile_plan

    def lenient(**arguments: Any) -> Any:
        try:
            return original(**arguments)
        except ConfigurationError:
            return original(**{**arguments, "user": (arguments["user"][0], None)})

    patch.setattr(compile_, "compile_plan", lenient)
    patch.setattr(compile_, "read_own_configuration", _as_text(files.read_own_configuration))


def _as_text(original: Any) -> Any:
    def read(path: str) -> str | None:
        try:
            text: str | None = original(path)
        except ConfigurationError:
            return ""
        return text

    return read


@mutation("undisputed")
def undisputed(patch: Patch, _: Path) -> None:
    """Of two credentials for one place the last one counts."""
    patch.setattr(collisions, "_check_places", lambda _one, _other: None)
