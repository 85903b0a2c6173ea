"""The program of a gateway's container: take the orders, make the CA, take the holder's sockets, serve.

    host ── orders ──▶ here ── the CA's certificate ──▶ host
    holder ── its sockets, over a Unix socket on a volume that both have ──▶ here, as on a host (runtimes/oci_holder.py)

Rule 1: what it writes is in memory (a tmpfs), and the socket.
Rule 2: standard input is its life: at its end the gateway ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from contextlib import suppress

from cloister.errors import CloisterError
from cloister.gateway import daemon
from cloister.gateway.authority import Authority
from cloister.gateway.server import GatewayStart
from cloister.network import holder
from cloister.outpost.far import Far, in_thread
from cloister.outpost.frames import Message
from cloister.runtimes.oci_holder import Line

DIRECTORY = "/run/cloister-gateway"  # a tmpfs: OpenSSL reads root certificates from files
_LAST_LINES_S = 1.0


def main() -> None:
    """Serve until the host's half goes."""
    for number in (signal.SIGTERM, signal.SIGINT):  # pid 1 has no default action for them
        signal.signal(number, lambda *_: sys.exit(0))
    daemon.search_nowhere()
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(_serve())
    finally:
        loop.close()


async def _serve() -> None:
    control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    far = Far(0, 1, theirs)
    orders = await far.orders
    if orders is None:
        return
    try:
        await _gateway(orders, far, control, theirs)
    except Exception as error:  # the session must hear of it; it stops the sandbox
        far.say({"op": "failed", "text": f"{type(error).__name__}: {error}"[:2000]})
    far.close()
    far.channel.send({"op": "ended"})
    with suppress(TimeoutError):
        async with asyncio.timeout(_LAST_LINES_S):
            await far.channel.drained()


async def _gateway(orders: Message, far: Far, control: socket.socket, theirs: socket.socket) -> None:
    sandbox_id = str(orders["sandbox"])
    line = Line(holder.DIRECTORY, made=True)
    authority = Authority(sandbox_id[-8:])
    far.channel.send({"op": "authority", "pem": authority.pem.decode()})
    roots = [_written(f"{DIRECTORY}/roots-{at}.pem", text) for at, text in enumerate(_list(orders["roots"]))]
    plan = orders["plan"]
    if not isinstance(plan, dict):
        raise TypeError("there is no plan in the orders")
    start = GatewayStart(
        sandbox_id=sandbox_id,
        plan={**plan, "upstream_ca": roots[1:]},
        audit_path="",
        control=control,
        public_directory=DIRECTORY,
        host_roots=roots[0] if os.path.getsize(roots[0]) else None,
        environ={str(name): str(value) for name, value in _pairs(orders["environment"])},
        home=far,
    )
    gateway = daemon.Gateway(start, authority)
    bound = [
        (int(str(index)), [int(str(port)) for port in _list(ports)])
        for index, ports in map(_list, _list(orders["bound"]))
    ]
    arguments = (line, bound, theirs, far, asyncio.get_running_loop())
    threading.Thread(target=_take_call, args=arguments, daemon=True).start()
    await gateway.run()


def _take_call(
    line: Line,
    bound: list[tuple[int, list[int]]],
    control: socket.socket,
    far: Far,
    loop: asyncio.AbstractEventLoop,
) -> None:
    """In a thread: pass the holder's sockets on to the gateway, and tell its end."""
    text = "the container that holds the sandbox's network ended"
    try:
        line.accept(bound, control)
        if line.connection is not None:
            line.connection.settimeout(None)
            line.connection.recv(1)  # it says nothing more
    except CloisterError as error:
        text = f"{error.brief}: {error.details}"
    except OSError as error:
        text = f"{text} ({error.strerror})"
    in_thread(loop, lambda: far.say({"op": "holder-ended", "text": text}))


def _written(path: str, text: object) -> str:
    with open(path, "w", encoding="utf-8") as file:
        file.write(str(text))
    return path


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError("the orders are not understood")
    return value


def _pairs(value: object) -> list[tuple[object, object]]:
    if not isinstance(value, dict):
        raise TypeError("the orders are not understood")
    return [*value.items()]
