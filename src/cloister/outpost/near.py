"""The half on the host, in the gateway's place: same process, same control socket, same pipe for the CA bundle.

    session ◀── control socket ──▶ here ◀── frames, over the engine's client ──▶ far.py, in the gateway's container

Rule 1: what comes from the container is judged as untrusted text is: it is the part that faces the sandbox and the
        Internet. It gets the values of credentials that the plan holds, connections to places that the plan pins, lines
        into the audit log, and sentences on the user's terminal: nothing else of this host.
Rule 2: a credential that asks first gives its value once the user has said so here: the container's word is not enough.
Rule 3: if the session dies this removes the sandbox's containers; if the container ends, it says so and ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
from contextlib import suppress

from cloister.audit.log import AuditLog
from cloister.gateway import authority, control, truststore
from cloister.gateway.control_server import ControlServer
from cloister.gateway.offload import Offload
from cloister.outpost import heard, streams
from cloister.outpost.channel import Channel
from cloister.outpost.errands import Errands
from cloister.outpost.frames import MESSAGE_LIMIT_BYTES, Data, FrameError, Message
from cloister.outpost.orders import Orders
from cloister.system import proc

_LAST_WORDS_BYTES = 4096
_END_S = 3.0  # for the container's last lines
_GONE_S = 1.0  # for the client's last words
_REMOVE_S = 20.0
_ASKED_S = 5.0
_LINGER_S = 2.0
_PACKET_BYTES = 1 << 16


def serve(orders: Orders, session: socket.socket, ca_pipe: int) -> int:
    """Serve until the session ends; the exit code. Blocks."""
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(_serve(orders, session, ca_pipe))
    finally:
        loop.close()
    return 0


async def _serve(orders: Orders, session: socket.socket, ca_pipe: int) -> None:
    await Near(orders, session, ca_pipe).run()


class Near:
    """One sandbox's. `run` serves until the session or the container ends."""

    def __init__(self, orders: Orders, session: socket.socket, ca_pipe: int) -> None:
        self._orders, self._session, self._ca_pipe = orders, session, ca_pipe
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._told = False  # the session has said that this is the end
        self._orphaned = False
        self._failure = ""
        self._last_words = bytearray()
        self._log = AuditLog(orders.audit_path, orders.sandbox_id, on_failure=self._log_failed)
        self._taken: Message | None = None
        self._number = 0
        self._said: dict[int, asyncio.Future[dict[str, object]]] = {}
        self._listeners: list[socket.socket] = []
        self._server: ControlServer | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._offload = Offload()

    async def run(self) -> None:
        """Serve."""
        try:
            self._child = proc.converse(self._orders.argv, environment=self._orders.engine)
        except OSError as error:
            self._close_pipe()
            self._tell("failed", f"the engine's client cannot be started: {error.strerror}")
            await self._linger()
            return
        self._channel = self._opened(self._child)
        self._streams = streams.Streams(self._channel)
        self._errands = Errands(
            self._orders.plan,
            environ=self._orders.environ,
            untrusted=self._orders.untrusted,
            upstream_ca=self._orders.upstream_ca,
            tell=lambda text: self._tell("tell", text),
        )
        self._loop.add_reader(self._session.fileno(), self._session_readable)
        self._channel.send(self._orders.message())
        await self._ended.wait()
        await self._close()

    def _opened(self, child: subprocess.Popen[bytes]) -> Channel:
        if child.stdin is None or child.stdout is None or child.stderr is None:
            raise TypeError("its streams do not come to us")
        os.set_blocking(child.stderr.fileno(), False)
        self._loop.add_reader(child.stderr.fileno(), self._errors_readable)
        channel = Channel(
            os.dup(child.stdout.fileno()),
            os.dup(child.stdin.fileno()),
            limit_bytes=MESSAGE_LIMIT_BYTES,
            hear=self._hear,
            ended=self._container_ended,
        )
        child.stdin.close()
        child.stdout.close()
        return channel

    def _errors_readable(self) -> None:
        stderr = self._child.stderr
        if stderr is None:
            return
        data = b""
        with suppress(BlockingIOError):
            data = os.read(stderr.fileno(), _LAST_WORDS_BYTES)
            self._last_words += data
            del self._last_words[:-_LAST_WORDS_BYTES]
            if not data:
                self._loop.remove_reader(stderr.fileno())

    # What the session says.

    def _session_readable(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(
                self._session, _PACKET_BYTES, 253, socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
            )
        except BlockingIOError:
            return
        except ConnectionResetError:
            data, descriptors = b"", []
        match control.parse(data, tuple(descriptors)):
            case control.Listen(sockets=sockets):
                for passed in sockets:
                    self._publish(passed.sock, passed.port)
            case control.Ended(told=told):
                self._loop.remove_reader(self._session.fileno())
                self._told, self._orphaned = told, not told
                self._ended.set()
            case control.Answer(name=name, allowed=allowed):
                self._errands.decide(name, allowed=allowed)
                self._channel.send({"op": "hear", "message": json.loads(data)})
            case _:
                self._channel.send({"op": "hear", "message": json.loads(data)})

    def _publish(self, listener: socket.socket, port: int) -> None:
        listener.setblocking(False)
        self._listeners.append(listener)
        self._loop.add_reader(listener.fileno(), self._accept, listener, port)

    def _accept(self, listener: socket.socket, port: int) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:  # it has gone again, or there are no descriptors
            return
        if len(self._streams) >= streams.STREAMS_LIMIT:
            sock.close()
            return
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number = self._next()
        self._channel.send({"op": "open", "stream": number, "port": port})
        self._streams.join(number, sock)

    # What the container says.

    def _hear(self, frame: Message | Data) -> None:
        if isinstance(frame, Data):
            self._streams.hear(frame)
            return
        match frame.get("op"):
            case "line":
                self._write(frame)
            case "say":
                self._say(heard.said(frame))
            case "fetch" | "dial" | "dial-proxy" | "is-own":
                self._begin(frame)
            case "credit" | "done":
                self._streams.hear(frame)
            case "reset":
                self._errands.abandon(heard.number(frame, "stream"))
                self._streams.hear(frame)
            case "authority":
                self._take_authority(heard.certificate(frame))
            case "ended":
                self._ended.set()
            case operation:
                raise FrameError(f"the container said {operation!r:.40}")

    def _write(self, frame: Message) -> None:
        """A line of the audit log; what has been written is confirmed together, at the end of this turn of the loop."""
        self._log.write(heard.event(frame))
        failure = self._log.failure
        waits = self._taken is not None
        self._taken = {"op": "confirmed", "number": heard.number(frame, "number")}
        if failure is not None:
            self._taken["errno"] = failure.errno or 5
        if not waits:
            self._loop.call_soon(self._confirm)

    def _confirm(self) -> None:
        if self._taken is not None:
            self._channel.send(self._taken)
            self._taken = None

    def _say(self, message: Message) -> None:
        match message["op"]:
            case "said":
                future = self._said.get(heard.number(message, "number"))
                if future is not None and not future.done():
                    future.set_result(heard.answer(message.get("answer")))
            case operation:
                if operation == "ready":
                    self._start_server()
                with suppress(OSError):
                    self._session.send(json.dumps(message).encode(), socket.MSG_DONTWAIT)

    def _begin(self, frame: Message) -> None:
        """An errand that takes its time; its answer goes back when it is done."""
        number = heard.number(frame, "number")

        async def run() -> None:
            try:
                answer = await self._errands.run(frame, self._streams)
            except FrameError as error:
                self._container_ended(str(error))
                return
            self._channel.send({"op": "answer", "number": number, **answer})

        if len(self._tasks) >= streams.STREAMS_LIMIT:
            self._channel.send({"op": "answer", "number": number, "errno": 11, "text": "too many at once"})
            return
        task = self._loop.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if frame["op"] != "fetch" and "stream" in frame:
            self._errands.note(heard.number(frame, "stream"), task)

    def _take_authority(self, pem: bytes) -> None:
        """Publish the CA as a gateway on the host does; in a thread, for the session reads when it gets there."""
        orders = self._orders
        pipe, self._ca_pipe = self._ca_pipe, -1
        if pipe < 0:
            raise FrameError("a second authority")

        def publish() -> None:
            authority.publish(
                authority.Published(pem=pem),
                ca_pipe=pipe,
                control=self._session.fileno(),
                public_directory=orders.public_directory,
                host_roots=orders.host_roots,
                upstream_ca=[*orders.upstream_ca],
            )
            sandbox = orders.plan.get("sandbox")
            if isinstance(sandbox, dict) and sandbox.get("java") is True:
                bundle = authority.bundle(
                    authority.Published(pem=pem), orders.host_roots, [*orders.upstream_ca]
                )
                truststore.make(bundle, f"{orders.public_directory}/truststore.p12")

        task = self._loop.create_task(self._offload.call(publish))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # The socket on which other commands ask.

    def _start_server(self) -> None:
        policy = self._orders.plan.get("policy")
        if self._server is None and isinstance(policy, dict) and policy.get("credentials"):
            self._server = ControlServer(self._orders.control_path, self._asked)
            self._server.start()

    async def _asked(self, line: bytes) -> dict[str, object]:
        """Pass a question on. What it decides counts here too (Rule 2)."""
        number = self._next()
        future: asyncio.Future[dict[str, object]] = self._loop.create_future()
        self._said[number] = future
        try:
            self._errands.overhear(line)
            text = line.decode(errors="replace")
            self._channel.send({"op": "hear", "message": {"op": "asked", "number": number, "line": text}})
            async with asyncio.timeout(_ASKED_S):
                return await future
        except TimeoutError:
            return {"error": "the gateway does not answer"}
        finally:
            del self._said[number]

    def _next(self) -> int:
        self._number += 2
        return self._number

    def _tell(self, operation: str, text: str) -> None:
        control.send(self._session, operation, text)

    def _log_failed(self, error: OSError) -> None:
        self._tell(
            "alarm", f"the audit log cannot be written ({error.strerror}): nothing new leaves the sandbox"
        )

    # The end.

    def _container_ended(self, why: str) -> None:
        self._failure = why or "it ended"
        self._ended.set()

    async def _close(self) -> None:
        self._close_pipe()  # the session may be waiting for the bundle
        for listener in self._listeners:
            self._loop.remove_reader(listener.fileno())
            listener.close()
        if self._server is not None:
            await self._server.close()
        if self._told:
            await self._part()
        elif self._orphaned:
            await self._remove()
        else:
            await self._report()
        self._errands.close()
        self._streams.close()
        self._channel.close()
        for task in self._tasks:
            task.cancel()
        self._log.close()

    def _close_pipe(self) -> None:
        pipe, self._ca_pipe = self._ca_pipe, -1
        if pipe >= 0:
            os.close(pipe)

    async def _part(self) -> None:
        """The session has ended the sandbox: the gateway writes its last lines."""
        self._ended.clear()
        self._channel.send({"op": "hear", "message": {"op": "end"}})
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                await self._ended.wait()

    async def _remove(self) -> None:
        """The session has died: nothing of its sandbox runs on. The next command removes what is left."""
        self._channel.close_writing()
        for argv in self._orders.remove:
            with suppress(OSError):  # TimeoutError too
                await self._offload.call(
                    lambda argv=argv: proc.run(argv, environment=self._orders.engine, timeout_s=_REMOVE_S)  # type: ignore[misc]  # a default binds it
                )

    async def _report(self) -> None:
        """The container has ended by itself: say why, in the engine's words if there are any."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_GONE_S):
                await self._offload.call(lambda: self._child.wait(_GONE_S))
        self._errors_readable()
        said = bytes(self._last_words).decode(errors="replace").strip()
        self._tell("failed", heard.printable(f"the gateway's container: {said or self._failure}"))
        await self._linger()

    async def _linger(self) -> None:
        """Until the session has heard it: an end with unread packets resets the connection, message and all."""
        self._session.setblocking(False)
        self._loop.remove_reader(self._session.fileno())
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(_LINGER_S):
                while await self._loop.sock_recv(self._session, _PACKET_BYTES):
                    continue
