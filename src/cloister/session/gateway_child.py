"""What the forked gateway does before it serves: let go of the terminal, make its CA, wait for its orders.

Rule 1: its own session (setsid): Ctrl-C and job control of the terminal do not reach it.
Rule 2: it holds no descriptor of the user's terminal, and nobody's standard input.
"""

from __future__ import annotations

import _socket
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloister.gateway.authority import Authority
    from cloister.gateway.patience import Packet

DEBUG = "CLOISTER_DEBUG"  # its errors are shown on the terminal too
PATHS_LIMIT_BYTES = 1 << 16
ELSEWHERE = b"\1"  # before the paths: the gateway runs in a container, and this is the host's half of it
_LINGER_S = 2.0


def main(control: int, ca_pipe: int) -> int:
    """Serve until the session goes away; returns the exit code. Never raises."""
    try:
        os.setsid()
        _forget_terminal()
        from cloister.gateway.authority import Authority, publish  # first: bubblewrap waits for it

        authority = Authority(os.urandom(4).hex())
        # The first packet holds paths alone, and is read without `socket` and `json`: they can wait, the CA cannot.
        connection = _socket.socket(fileno=control)
        paths = connection.recv(PATHS_LIMIT_BYTES)
        connection.detach()
        if not paths:
            return 0  # the session found that it cannot start a sandbox
        if paths.startswith(ELSEWHERE):
            return _be_near(control, ca_pipe, paths.removeprefix(ELSEWHERE))
        public, roots, *upstream = os.fsdecode(paths).split("\0")
        publish(
            authority,
            ca_pipe=ca_pipe,
            control=control,
            public_directory=public,
            host_roots=roots or None,
            upstream_ca=upstream,
        )
        from cloister.gateway import patience

        packets = patience.wait(control)
        return _serve(authority, control, public, roots or None, packets) if packets[0][0] else 0
    except BaseException as error:
        _report(control, error)
        return 1


def _serve(
    authority: Authority,
    control: int,
    public_directory: str,
    host_roots: str | None,
    packets: list[Packet],
) -> int:
    import gc
    import json
    import signal
    import socket

    from cloister.gateway.server import GatewayStart, serve

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    connection = socket.socket(fileno=control)
    (data, (plan_file,)), *packets = packets
    begin = json.loads(data)
    with open(plan_file, "rb") as file:
        plan = json.load(file)
    gc.enable()  # off in the session (cli/__init__.py), which ends soon; this process may live for days
    start = GatewayStart(
        sandbox_id=begin["sandbox"],
        plan=plan,
        audit_path=begin["audit"],
        control=connection,
        public_directory=public_directory,
        host_roots=host_roots,
        environ=dict(os.environ),
        untrusted=tuple(begin["untrusted"]),
        control_path=begin["control"],
    )
    return serve(start, authority, packets)


def _be_near(control: int, ca_pipe: int, paths: bytes) -> int:
    """Serve as the host's half of a gateway in a container (outpost/near.py)."""
    import gc
    import json
    import socket

    from cloister.gateway import asyncio_without_ssl  # noqa: F401 - must come before all that imports asyncio
    from cloister.outpost import near
    from cloister.outpost.orders import Orders

    public, roots, *upstream = os.fsdecode(paths).split("\0")
    session = socket.socket(fileno=control)
    data, (plan_file,), _, _ = socket.recv_fds(session, PATHS_LIMIT_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
    begin, place = json.loads(data), json.loads(data)["outpost"]
    with open(plan_file, "rb") as file:
        plan = json.load(file)
    gc.enable()
    orders = Orders(
        sandbox_id=begin["sandbox"],
        plan=plan,
        audit_path=begin["audit"],
        untrusted=tuple(begin["untrusted"]),
        control_path=begin["control"],
        public_directory=public,
        host_roots=roots or None,
        upstream_ca=tuple(upstream),
        environ=dict(os.environ),
        engine=place["environment"],
        argv=tuple(place["argv"]),
        remove=tuple(map(tuple, place["remove"])),
        bound=place["bound"],
    )
    return near.serve(orders, session, ca_pipe)


def _forget_terminal() -> None:
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1) if os.environ.get(DEBUG) else (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)


def _report(control: int, error: BaseException) -> None:
    import json
    import socket

    if os.environ.get(DEBUG):
        import traceback

        traceback.print_exc()
    text = f"{type(error).__name__}: {error}"[:2000]
    connection = socket.socket(fileno=control)
    try:
        connection.send(json.dumps({"op": "failed", "text": text}).encode())
        # Stay until the session has heard it: an end with unread packets resets the connection, message and all.
        connection.settimeout(_LINGER_S)
        while connection.recv(PATHS_LIMIT_BYTES):
            continue
    except OSError:
        return  # the session is gone; nobody is left to tell
