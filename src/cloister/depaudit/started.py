"""Read, of a program that is about to be started, what it is: from the memory of the thread that asks for it.

Rule 1: for information only (runtimes/exec_watch.py): the memory may be changed behind us.
Rule 2: bounded reads, of addresses that the sandbox chose; whatever cannot be read is left out.
Rule 3: of the environment only `scripts.VARIABLES` are kept: the rest may hold anything.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field

from cloister.depaudit import scripts
from cloister.runtimes.exec_watch import Start

_PAGE_BYTES = 4096
_POINTER = struct.Struct("=Q")
PATH_LIMIT_BYTES = 4096
ARGUMENT_LIMIT_BYTES = 1024
ARGUMENTS_LIMIT = 64
ALL_ARGUMENTS_LIMIT_BYTES = 8192  # some thousand programs are kept
VARIABLES_LIMIT = 512
_METADATA_LIMIT_BYTES = 1 << 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Who starts what. `directory` and `path` as the sandbox sees them."""

    pid: int
    parent: int
    path: str
    arguments: tuple[str, ...]
    directory: str
    environment: dict[str, str] = field(default_factory=dict)
    exists: bool = True  # a search along PATH tries many places


def read(start: Start) -> Call | None:
    """Look at the waiting thread. None if it is gone."""
    try:
        pid, parent = _ids(start.tid)
        directory = os.readlink(f"/proc/{start.tid}/cwd")
        memory = os.open(f"/proc/{start.tid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError, KeyError):
        return None
    try:
        path = _text(memory, start.path, PATH_LIMIT_BYTES)
        arguments = _arguments(memory, start.arguments)
        environment = {}
        for address in _pointers(memory, start.environment, VARIABLES_LIMIT):
            name, _, value = _text(memory, address, ARGUMENT_LIMIT_BYTES).partition("=")
            if name in scripts.VARIABLES:
                environment[name] = value
    finally:
        os.close(memory)
    path = _absolute(start, path, directory)
    return Call(
        pid=pid,
        parent=parent,
        path=path,
        arguments=arguments,
        directory=directory,
        environment=environment,
        exists=path.startswith("/memfd:") or os.path.lexists(f"/proc/{start.tid}/root{path}"),
    )


def parent_of(pid: int) -> int | None:
    """The parent of a process; None if it is gone."""
    try:
        return _ids(pid)[1]
    except (OSError, ValueError, KeyError):
        return None


def package_of(tid: int) -> tuple[str, str]:
    """Name and version of the Python package that is built in the directory of a thread; empty if it does not say."""
    text = ""
    for name in ("PKG-INFO", "pyproject.toml"):
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with open(os.open(f"/proc/{tid}/cwd/{name}", flags), "rb") as file:
                text = file.read(_METADATA_LIMIT_BYTES).decode(errors="replace")
                break
        except OSError:
            continue
    found = {"name": "", "version": ""}
    for line in text.splitlines():
        key, _, value = line.partition(":" if name == "PKG-INFO" else "=")
        if not line:
            if name == "PKG-INFO":
                break  # the description follows
        elif key.strip().lower() in found and not found[key.strip().lower()]:
            found[key.strip().lower()] = value.strip().strip("\"'")
    return found["name"], found["version"]


def _ids(tid: int) -> tuple[int, int]:
    with open(f"/proc/{tid}/status", encoding="utf-8", errors="replace") as file:
        fields = dict(line.split(":", 1) for line in file if ":" in line)
    return int(fields["Tgid"]), int(fields["PPid"])


def _arguments(memory: int, address: int) -> tuple[str, ...]:
    found: list[str] = []
    left = ALL_ARGUMENTS_LIMIT_BYTES
    for pointer in _pointers(memory, address, ARGUMENTS_LIMIT):
        found.append(_text(memory, pointer, min(left, ARGUMENT_LIMIT_BYTES)))
        left -= len(found[-1])
        if left <= 0:
            break
    return tuple(found)


def _absolute(start: Start, path: str, directory: str) -> str:
    if start.directory is not None and not path.startswith("/"):
        number = start.directory & 0xFFFFFFFF
        if number < 1 << 31:  # else AT_FDCWD
            try:
                directory = os.readlink(f"/proc/{start.tid}/fd/{number}")
            except OSError:
                return path
            if not path:
                return directory.removesuffix(" (deleted)")
    return os.path.normpath(os.path.join(directory, path))


def _text(memory: int, address: int, limit_bytes: int) -> str:
    """A string of C; what is longer is cut."""
    found = b""
    while len(found) < limit_bytes:
        part = _read(memory, address + len(found), _PAGE_BYTES - (address + len(found)) % _PAGE_BYTES)
        found += part
        if not part or b"\0" in part:
            break
    return found.split(b"\0", 1)[0][:limit_bytes].decode(errors="replace")


def _pointers(memory: int, address: int, limit: int) -> list[int]:
    data = b""
    while len(data) < limit * _POINTER.size:
        position = address + len(data)
        part = _read(memory, position, min(512, _PAGE_BYTES - position % _PAGE_BYTES))
        data += part
        if not part or b"\0" * _POINTER.size in part:
            break
    found: list[int] = []
    for (pointer,) in _POINTER.iter_unpack(data[: len(data) // _POINTER.size * _POINTER.size]):
        if not pointer or len(found) >= limit:
            break
        found.append(pointer)
    return found


def _read(memory: int, address: int, count: int) -> bytes:
    try:
        return os.pread(memory, count, address)
    except (OSError, OverflowError, ValueError):
        return b""
