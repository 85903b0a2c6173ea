"""Ask a Docker engine of this host itself, over its socket: a question costs 2 ms, and by way of a client's process 25.

Rule 1: a shortcut and no more. What is not the expected answer is None, and the caller asks the client, whose words are
        for people.
Rule 2: only the engine that the client would reach: the Unix socket that DOCKER_HOST names, or the default one where
        neither DOCKER_CONTEXT nor the client's own configuration chooses a context.
Rule 3: an answer has a limit and a deadline.
"""

from __future__ import annotations

import os
import time

from cloister.lean import json, socket
from cloister.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_SOCKET = "/var/run/docker.sock"
LIMIT_BYTES = 4 << 20
TIMEOUT_S = 30.0
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/:@")


def address(environment: Mapping[str, str]) -> str | None:
    """The socket of the engine that a client with this environment would reach; None if that is not known here."""
    host = environment.get("DOCKER_HOST")
    if host:
        return host.removeprefix("unix://") if host.startswith("unix:///") else None
    if environment.get("DOCKER_CONTEXT", "default") != "default":
        return None
    directory = environment.get("DOCKER_CONFIG") or f"{environment.get('HOME', '')}/.docker"
    try:
        settings = json.loads(files.read(f"{directory}/config.json") or b"{}")
        chosen = settings.get("currentContext") or "default"
    except (OSError, ValueError, AttributeError):
        return None
    return DEFAULT_SOCKET if chosen == "default" else None


def look_up(where: str, kind: str, name: str) -> dict[str, object] | None:
    """What the engine knows of a container or an image; `kind` is "containers" or "images"."""
    answer = _ask(where, f"GET /{kind}/{name}/json", name, TIMEOUT_S)
    if answer is None or answer[0] != 200:
        return None
    try:
        said = json.loads(answer[1])
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def start(where: str, container: str, *, timeout_s: float) -> bool:
    """Start a container that has been made; whether the engine says that it runs."""
    answer = _ask(where, f"POST /containers/{container}/start", container, timeout_s)
    return answer is not None and answer[0] == 204


def _ask(where: str, what: str, name: str, timeout_s: float) -> tuple[int, bytes] | None:
    """The status and the body of one answer. HTTP/1.0: the body ends with the connection."""
    if not name or not _PLAIN.issuperset(name) or ".." in name:
        return None
    deadline = time.monotonic() + timeout_s
    received = bytearray()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as engine:
            engine.settimeout(timeout_s)
            engine.connect(os.fsencode(where))
            engine.sendall(f"{what} HTTP/1.0\r\nHost: docker\r\nContent-Length: 0\r\n\r\n".encode())
            while part := engine.recv(1 << 16):
                received += part
                if len(received) > LIMIT_BYTES or time.monotonic() > deadline:
                    return None
    except OSError:  # a time-out too
        return None
    head, end, body = received.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if not end or len(words) < 3 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        return None
    return int(words[1]), bytes(body)
