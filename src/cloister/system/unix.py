"""Unix sockets at paths of any length (unix(7) allows 107 bytes)."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def bind(listener: socket.socket, path: str, *, mode: int = 0o600) -> None:
    """Bind through the directory's descriptor; what stands at `path` is removed. OSError."""
    with suppress(FileNotFoundError):
        os.unlink(path)
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    name = os.path.basename(path)
    try:
        os.fchmod(listener.fileno(), mode)  # before the bind: the file is born with it, less the umask
        listener.bind(f"/proc/self/fd/{directory}/{name}")
        os.chmod(name, mode, dir_fd=directory)
    finally:
        os.close(directory)
