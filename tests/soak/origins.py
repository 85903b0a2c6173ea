"""The origins of a soak: one process, to be killed and stopped, which writes down what it saw.

    python -m tests.soak.origins     reads one line of JSON (`Orders`), says "ready", serves until its input ends

Rule 1: a line is one write to a file opened with O_APPEND, so nothing that was seen is forgotten by `kill -9`.
Rule 2: everything that arrives at an origin is searched for the credentials that are not bound to it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from email.message import Message
from pathlib import Path

from tests.fakes import websocket_origin
from tests.fakes.git_origin import GitOrigin
from tests.fakes.origin import Origin, Seen, swallow
from tests.fakes.origins import Authority, LineOrigin
from tests.fakes.web_origin import Answer, Request, ResetError, WebOrigin
from tests.soak.inside import places

ROOT = Path(__file__).parents[2]
_STALL_S = 3.0
_BOUND = {"api": (places.API, places.FAULT, places.CHAT), "git": (places.GIT,)}
_WHOLE_BYTES = 1 << 20  # longer bodies have no declared length


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What the process is told. `canaries`: the credentials' values by name."""

    log: str
    scratch: str
    authority: tuple[str, str]
    ports: dict[str, int]
    canaries: dict[str, str]


def spellings(value: str) -> tuple[bytes, ...]:
    """A secret as it could appear."""
    raw = value.encode()
    plain = {raw, raw[::-1], raw.hex().encode(), urllib.parse.quote(value, safe="").encode()}
    shifted = {base64.b64encode(b"x" * shift + raw)[4:-4] for shift in range(3)}
    return tuple(plain | shifted)


class Origins:
    """The process, from outside."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._process = self._start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """At once, with everything that is open."""
        self._process.kill()
        self._process.communicate()

    def again(self) -> None:
        """Start it anew, at the same ports."""
        self._process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        with open(f"{self._orders.scratch}/errors", "a") as errors:  # clients that break off fill it
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.soak.origins"],
                cwd=ROOT,
                env={**os.environ, "TMPDIR": self._orders.scratch},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(asdict(self._orders)) + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ready\n"
        return process


class _Log:
    def __init__(self, orders: Orders) -> None:
        self._file = os.open(orders.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._foreign = {
            origin: [form for name, bound in _BOUND.items() if origin not in bound for form in forms[name]]
            for forms in [{name: spellings(value) for name, value in orders.canaries.items()}]
            for origin in orders.ports
        }

    def row(self, origin: str, trial: str, data: bytes, *, path: str = "", credential: bool = False) -> None:
        """One thing that arrived: `trial` is whose, `data` all of it."""
        leaked = any(form in data for form in self._foreign[origin])
        row = {
            "origin": origin,
            "trial": trial,
            "path": path,
            "credential": credential,
            "leaked": leaked,
            "bytes": len(data),
            "at": time.time(),
        }
        os.write(self._file, json.dumps(row).encode() + b"\n")


class _Web(WebOrigin):
    """Writes down instead of remembering."""

    log: _Log
    name: str
    token: str

    def answer(self, request: Request) -> Answer:
        trial = [*request.path.split("/"), "", ""][2]
        head = repr((request.method, request.path, request.host, request.headers)).encode()
        given = request.headers.get("authorization", "")
        self.log.row(
            self.name,
            trial,
            head + request.body,
            path=request.path,
            credential=given == f"Bearer {self.token}",
        )
        answer = respond(request)
        return Answer(
            status=answer.status, headers={**answer.headers, "X-Origin": self.name}, body=answer.body
        )


def respond(request: Request) -> Answer:
    """The origin's side of `inside/web.py`."""
    _, kind, trial, *rest = request.path.split("/")
    match kind, rest:
        case "echo", _:
            given = request.headers.get("authorization", "")
            return Answer(headers={"X-Echo": given}, body=f"echo {trial}: {given}\n".encode())
        case "small", [number]:
            return Answer(body=f"small {trial}/{number}\n".encode())
        case "bytes", [size]:
            parts = places.bulk(trial, int(size))
            return Answer(body=b"".join(parts) if int(size) < _WHOLE_BYTES else parts)
        case "upload", _:
            return Answer(body=hashlib.sha256(request.body).hexdigest().encode())
        case "events", [count]:
            return Answer(headers={"Content-Type": "text/event-stream"}, body=_events(int(count)))
        case (("cut" | "reset" | "stall"), [size]):
            return Answer(body=_broken(kind, trial, int(size)))
    return Answer(status=404)


def _events(count: int) -> Iterator[bytes]:
    for number in range(count):
        yield b"data: %d\n\n" % number
        time.sleep(0.02)


def _broken(kind: str, trial: str, size: int) -> Iterator[bytes]:
    yield from places.bulk(trial, size // 2)
    if kind == "stall":
        time.sleep(_STALL_S)
    raise ResetError if kind == "reset" else OSError


def _rest() -> None:
    time.sleep(0.05)


def _no_rest() -> None:
    return


class _Lines(LineOrigin):
    log: _Log

    def talk(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rwb", buffering=0) as file:
                file.write(places.GREETING)
                for line in file:
                    text = line.decode().strip()
                    self.log.row(places.LINE, text.partition(" ")[2], line)
                    file.write(text[::-1].encode() + b"\n")
        except OSError:
            return


def main() -> None:
    words = json.loads(sys.stdin.readline())
    orders = Orders(**{**words, "authority": tuple(words["authority"])})
    log = _Log(orders)
    authority = Authority.of_stored(*orders.authority)
    token = orders.canaries["api"]

    def chat(seen: Seen, sock: socket.socket) -> None:
        try:
            websocket_origin.serve(seen, sock, token)
        finally:
            target = bytes(seen.data).split(b"\r\n", 1)[0].decode("latin-1").split("/")
            trial = target[2].split(" ")[0] if len(target) > 2 else ""
            brought = token.encode() in seen.data
            log.row(places.CHAT, trial, bytes(seen.data), path=f"/chat/{trial}", credential=brought)

    def silent(name: str) -> Origin:
        def serve(seen: Seen, sock: socket.socket) -> None:
            try:
                swallow(seen, sock)
            finally:
                log.row(name, "", bytes(seen.data))

        return Origin(serve, port=orders.ports[name])

    def git(path: str, headers: Message) -> None:
        log.row(places.GIT, headers["User-Agent"].partition(" ")[2], f"{path} {headers}".encode())

    _Web.log, _Web.token, _Lines.log = log, token, log
    with ExitStack() as stack:
        for name in (places.API, places.FAULT, places.RULE, places.SPLICE, places.PLAIN, places.SINK):
            web = _Web(
                None if name == places.PLAIN else authority,
                name,
                protocols=("h2", "http/1.1"),
                port=orders.ports[name],
                between=_rest if name == places.SINK else _no_rest,
            )
            web.name = name
            stack.enter_context(web)
        Origin(chat, tls=authority.context((places.CHAT,)), port=orders.ports[places.CHAT])
        silent(places.HALF)
        silent(places.EVIL)
        stack.enter_context(_Lines(orders.ports[places.LINE]))
        stack.enter_context(
            GitOrigin(
                authority,
                password=orders.canaries["git"],
                name=places.GIT,
                port=orders.ports[places.GIT],
                watch=git,
            )
        )
        print("ready", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
