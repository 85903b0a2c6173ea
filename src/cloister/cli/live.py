"""Speak with the gateways of the user's live sandboxes, on the sockets of `gateway/control_server.py`.

Rule 1: a sandbox that has ended meanwhile, or was killed and left its socket, is one that does not live.
Rule 2: what comes back may name hosts that the sandbox chose: it is shown with `visible` only.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cloister.config.directories import Project, all_runs
from cloister.errors import GatewayError

SUFFIX = ".sock"
_TIMEOUT_S = 5.0
_ANSWER_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """A sandbox whose gateway listens at `path`."""

    sandbox_id: str
    path: str

    @property
    def short(self) -> str:
        """What tells it from the others of its project."""
        return self.sandbox_id.rpartition("-")[2]

    def ask(self, **message: str) -> dict[str, object]:
        """One question, one answer. GatewayError if there is none."""
        try:
            with _connected(self.path) as sock:
                sock.sendall(json.dumps(message).encode() + b"\n")
                answer = json.loads(_line(sock))
        except (OSError, ValueError) as error:
            raise GatewayError(
                f"the gateway of sandbox {self.sandbox_id!r} does not answer",
                details=str(error),
                resolution="see whether the sandbox still runs",
            ) from None
        if not isinstance(answer, dict):
            raise GatewayError(
                f"the gateway of sandbox {self.sandbox_id!r} says something else than expected"
            )
        return answer

    def entries(self, operation: str) -> list[dict[str, object]]:
        """The list that answers "pending" or "credentials"."""
        found = self.ask(op=operation).get(operation)
        return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def of_project(project: Project) -> list[Live]:
    """The live sandboxes of one workspace."""
    return _in(project.runs)


def of_user(state_directory: str) -> list[Live]:
    """The live sandboxes of every workspace."""
    return [live for runs in all_runs(state_directory) for live in _in(runs)]


def _in(runs: str) -> list[Live]:
    try:
        names = sorted(os.listdir(runs))
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = [
        Live(sandbox_id=name.removesuffix(SUFFIX), path=os.path.join(runs, name))
        for name in names
        if name.endswith(SUFFIX)
    ]
    return [live for live in found if _lives(live.path)]


def _lives(path: str) -> bool:
    try:
        with _connected(path):
            return True
    except OSError:
        return False


@contextmanager
def _connected(path: str) -> Iterator[socket.socket]:
    """A connection to a path of any length: through the directory's descriptor (unix(7) allows 107 bytes)."""
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_TIMEOUT_S)
            sock.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
            yield sock
    finally:
        os.close(directory)


def _line(sock: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n") and len(data) < _ANSWER_LIMIT_BYTES:
        chunk = sock.recv(1 << 16)
        if not chunk:
            raise OSError("it closed the connection: it does not take questions from here")
        data += chunk
    return data
