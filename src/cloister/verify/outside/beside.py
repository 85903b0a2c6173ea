"""An origin for the host's probes, in a process of its own: who verifies goes on forking, so it can have no threads."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cloister.config import directories
from cloister.system import files, linux
from cloister.verify import origin
from cloister.verify.outside.world import World
from cloister.verify.witnesses import wait_for

NAME = "origin.cloister-verify.test"
OTHER = "other.cloister-verify.test"  # the same origin, by a name that no rule grants
_ASK = """
import http.client, sys
name, path, timeout, address = sys.argv[1:]
connection = http.client.HTTPConnection(address, 80, timeout=float(timeout))
try:
    connection.request("GET", path, headers={"Host": name})
    status = connection.getresponse().status
except (OSError, http.client.HTTPException) as error:
    sys.exit(f"{type(error).__name__}: {error}")
sys.exit(0 if status == 200 else f"answered with {status}")
"""
_IDLE_S = 30.0
_NOTED_BYTES = 2000  # of a request; less than PIPE_BUF, so that two do not mix


class Beside:
    """`port` of the host's loopback answers HTTP; `seen` is all that has come so far."""

    def __init__(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(listener.getsockname()[1])
        self._read, writing = os.pipe()
        os.set_blocking(self._read, False)
        self._data = b""
        ours = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            with suppress(BaseException):
                linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() == ours:
                    _serve(listener, writing)
            os._exit(1)
        listener.close()
        os.close(writing)

    def seen(self) -> bytes:
        with suppress(BlockingIOError):
            while part := os.read(self._read, 1 << 16):
                self._data += part
        return self._data

    def waited(self, mark: bytes, deadline_s: float) -> bool:
        """Whether that has come in time."""
        return wait_for(lambda: mark in self.seen(), deadline_s)

    def close(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._read)


@contextmanager
def made() -> Iterator[Beside]:
    """One that ends with the block."""
    found = Beside()
    try:
        yield found
    finally:
        found.close()


def _serve(listener: socket.socket, writing: int) -> None:
    def note(data: bytes) -> None:
        os.write(writing, data[:_NOTED_BYTES] + b"\n")

    def answer(connection: socket.socket) -> None:
        connection.settimeout(_IDLE_S)
        with connection, suppress(OSError, ValueError):
            origin.serve(connection, note)

    while True:
        connection = listener.accept()[0]
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def configured(world: World, beside: Beside, *, allow: tuple[str, ...] = (NAME,)) -> str:
    """A configuration of the world's with that origin under both names, and these granted over cleartext."""
    text = (files.read_text(directories.user_file(world.environ)) or "").partition("[network]")[0]
    pins = "".join(f'"{name}" = "127.0.0.1:{beside.port}"\n' for name in (NAME, OTHER))
    granted = ", ".join(f'"{name}:80"' for name in allow)
    text = text.replace('profile = "offline"', 'profile = "agent"')  # offline, nothing that is allowed counts
    return f"{text}[network]\nallow = [{granted}]\n[network.hosts]\n{pins}"


def write(world: World, text: str | bytes) -> None:
    """Make this the world's configuration."""
    data = text.encode() if isinstance(text, str) else text
    files.write_atomic(directories.user_file(world.environ), data)


def asking(name: str, path: str, timeout_s: float = 5.0, address: str = "") -> tuple[str, ...]:
    """A command for the sandbox: ends with 0 if the origin answers, at the address that the name has or had."""
    return ("python3", "-I", "-c", _ASK, name, path, str(timeout_s), address or name)
