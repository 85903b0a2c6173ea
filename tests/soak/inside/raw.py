"""Trials below HTTP: sockets that do nothing, many short ones, DNS, a line protocol, WebSocket, and git."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
from contextlib import ExitStack

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Event, Request, TextMessage

from . import places
from .web import Lane, Trial

CONTEXT = ssl.create_default_context()  # httpx offers HTTP/2 by the one that it is given
PROXY = ("127.0.0.1", 3128)
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close sends RST


def _connect(host: str, port: int = 443) -> socket.socket:
    return socket.create_connection((host, port), 30)


def _close(lane: Lane, sock: socket.socket) -> None:
    """In peace or not."""
    if lane.rng.random() < 0.3:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()


def short(lane: Lane) -> str:
    """Connections that come and go, some in the middle of a sentence."""
    parts = (b"", b"G", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01", b"CONNECT x")
    for _ in range(30):
        where = lane.rng.choice(((places.API, 443), (places.PLAIN, 80), PROXY, (places.SPLICE, 443)))
        sock = _connect(*where)
        sock.sendall(lane.rng.choice(parts))
        _close(lane, sock)
    return "aborted"


def idle(lane: Lane) -> str:
    """Connections that stay and say nothing, or half of something; some longer than the gateway waits."""
    with ExitStack() as stack:
        for part in (b"", b"GET /idle", b"\x16\x03\x01\x02"):
            sock = stack.enter_context(_connect(*lane.rng.choice(((places.API, 443), PROXY))))
            sock.sendall(part)
        sock.settimeout(lane.rng.choice((0.2, 1.0, 3.0, 11.0)))
        try:
            while sock.recv(4096):
                continue
        except TimeoutError:
            return "aborted"
    return "refused"


def granted_name(lane: Lane) -> str:
    found = socket.getaddrinfo(places.API, 443, type=socket.SOCK_STREAM)
    return "whole" if found[0][4][0] else "wrong"


def refused_name(lane: Lane) -> str:
    """One of a few hundred: the gateway writes each down once."""
    name = f"n{lane.rng.randrange(300)}.names.{places.EVIL}"
    try:
        socket.getaddrinfo(name, 443, type=socket.SOCK_STREAM)
    except socket.gaierror:
        lane.detail = name
        return "refused"
    return "wrong"


def line(lane: Lane) -> str:
    """A protocol in which the server speaks first."""
    with _connect(places.LINE, places.LINE_PORT) as sock, sock.makefile("rwb", buffering=0) as file:
        if (greeting := file.readline()) != places.GREETING:
            return "wrong" if greeting else "failed"
        text = f"trial {lane.trial}".encode()
        file.write(text + b"\n")
        answer = file.readline()
        lane.notebook.got(answer)
        if not answer:
            return "failed"
        return "whole" if answer == text[::-1] + b"\n" else "wrong"


class _Talk:
    """One WebSocket."""

    def __init__(self, lane: Lane, sock: socket.socket) -> None:
        self._lane, self._sock = lane, sock
        self._websocket = WSConnection(ConnectionType.CLIENT)

    def send(self, event: Event) -> None:
        self._sock.sendall(self._websocket.send(event))

    def receive(self) -> Event | None:
        """The next event, a whole message; None at the end."""
        parts: list[bytes] = []
        while True:
            for event in self._websocket.events():
                if isinstance(event, (TextMessage, BytesMessage)):
                    parts.append(event.data.encode() if isinstance(event.data, str) else bytes(event.data))
                    if event.message_finished:
                        return BytesMessage(data=b"".join(parts))
                elif not isinstance(event, AcceptConnection):
                    return event
            data = self._sock.recv(65536)
            if not data:
                return None
            self._websocket.receive_data(data)

    def message(self) -> bytes | None:
        event = self.receive()
        return bytes(event.data) if isinstance(event, BytesMessage) else None


def websocket(lane: Lane) -> str:
    """The handshake brings the credential; what the origin says of it is masked; what is sent comes back."""
    with CONTEXT.wrap_socket(_connect(places.CHAT), server_hostname=places.CHAT) as sock:
        talk = _Talk(lane, sock)
        token = [(b"authorization", b"Bearer " + os.environb[b"API_TOKEN"])]
        talk.send(Request(host=places.CHAT, target=f"/chat/{lane.trial}", extra_headers=token))
        welcome = talk.message()
        if welcome is None:
            return "failed"
        lane.notebook.got(welcome)
        if places.MASK.encode() not in welcome:
            return "wrong"
        for _ in range(lane.rng.randrange(1, 6)):
            sent = next(places.bulk(lane.trial, lane.rng.randrange(1, places.BLOCK_BYTES)))
            talk.send(BytesMessage(data=sent))
            if (back := talk.message()) != sent:
                return "failed" if back is None else "wrong"
        if lane.rng.random() < 0.3:
            return "aborted"  # without a word
        talk.send(CloseConnection(code=1000))
        talk.receive()
    return "whole"


def git(lane: Lane) -> str:
    """Clone, push to a branch of the agent's, fetch; and a push to another branch, which must be refused."""
    directory = tempfile.mkdtemp()
    settings = {
        **os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "http.userAgent", "GIT_CONFIG_VALUE_0": f"git/2 {lane.trial}",
    }  # fmt: skip

    def call(*arguments: str, cwd: str = f"{directory}/copy") -> int:
        who = ("-c", "user.name=agent", "-c", "user.email=agent@example.test")
        argv = ["git", *who, *arguments]
        done = subprocess.run(argv, cwd=cwd, env=settings, capture_output=True, check=False, timeout=60)
        lane.notebook.got(done.stdout + done.stderr)
        return done.returncode

    branch = f"agent/{lane.trial}"
    try:
        if call("clone", "-q", f"https://{places.GIT}/widget.git", "copy", cwd=directory):
            return "failed"
        size = lane.rng.randrange(1, 2 << 20)
        with open(f"{directory}/copy/big", "wb") as file:
            file.writelines(places.bulk(lane.trial, size))
        steps = (("checkout", "-q", "-b", branch), ("add", "big"), ("commit", "-q", "-m", "second"))
        if any(call(*step) for step in steps):
            return "wrong"
        if call("push", "-q", "origin", branch) or call("fetch", "-q", "origin"):
            return "failed"
        return "whole" if call("push", "-q", "origin", "HEAD:main") else "wrong"
    finally:
        shutil.rmtree(directory)


TRIALS: dict[str, tuple[int, Trial]] = {
    "short": (6, short),
    "idle": (2, idle),
    "granted-name": (8, granted_name),
    "refused-name": (8, refused_name),
    "line": (8, line),
    "websocket": (5, websocket),
    "git": (1, git),
}
