"""Tell who opens a watched file, at the moment of it: file leases (fcntl(2), F_SETLEASE).

Whoever opens a leased file waits until the lease is given up; meanwhile /proc shows which thread waits, in which call
and for which path. inotify tells that a file was opened, but not by whom; fanotify would, for root alone.

Rule 1: an opener waits for some milliseconds, and never for long: the lease is given up whatever is found.
Rule 2: nothing depends on it: where a file system has no leases, or the opener does not wait, inotify still tells of
        the opening (`Inotify`), and the opener stays unknown.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from cloister.system import linux

IN_OPEN, IN_CLOSE_WRITE, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x20, 0x8, 0x80, 0x100, 0x200
IN_ISDIR = 0x40000000
_RENEW_S = 0.003
_LOOK_S, _LOOK_AGAIN_S, _LEAST_LOOKS = 0.05, 0.001, 8
_EVENT = struct.Struct("=iIII")
# Where the path and the flags stand in the arguments of the calls that open; creat and truncate always write.
_CALLS: dict[str, dict[int, tuple[int, int | None]]] = {
    "x86_64": {2: (0, 1), 257: (1, 2), 85: (0, None), 76: (0, None)},
    "aarch64": {56: (1, 2), 45: (0, None)},
    "riscv64": {56: (1, 2), 45: (0, None)},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Opener:
    """A thread that waits to open something."""

    pid: int
    writing: bool
    program: tuple[str, ...]


class Leases:
    """Leases upon files, by name. A context manager: SIGIO wakes `wakeup` when one is to be broken."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._paths = dict(files)
        self._held: dict[str, int] = {}
        self._lost: dict[str, int] = {}
        self.wakeup, self._woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def __enter__(self) -> Leases:
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGIO, lambda *_: None)
        for name, path in self._paths.items():
            with suppress(OSError):
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                self._lost[name] = descriptor
        self.renew()
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in (*self._held.values(), *self._lost.values()):
            os.close(descriptor)  # gives the lease up
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        os.close(self.wakeup)
        os.close(self._woken)

    @property
    def complete(self) -> bool:
        """Whether every file has its lease; else `renew` should be tried again soon."""
        return not self._lost

    def renew(self) -> None:
        """Take the leases again that were given up. One whose file is open cannot be had."""
        for name, descriptor in list(self._lost.items()):
            try:
                fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            except OSError:
                continue
            self._held[name] = self._lost.pop(name)

    def _renew_soon(self, name: str) -> None:
        """Most openers read a few bytes and close; the next one is to be caught as well."""
        end = time.monotonic() + _RENEW_S
        while name in self._lost and time.monotonic() < end:
            os.sched_yield()
            self.renew()

    def broken(self, inside: int) -> Iterator[tuple[str, tuple[Opener, ...]]]:
        """The files that are being opened now, and by whom; their leases are given up.

        `inside` is a process of the sandbox.
        """
        with suppress(BlockingIOError):
            os.read(self.wakeup, 4096)
        for name, descriptor in list(self._held.items()):
            if fcntl.fcntl(descriptor, fcntl.F_GETLEASE) == fcntl.F_WRLCK:
                continue
            try:
                found = tuple(_waiting(os.path.basename(self._paths[name]), inside))
            finally:
                fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
                self._lost[name] = self._held.pop(name)
            self._renew_soon(name)
            yield name, found


class Inotify:
    """Events of files and directories, by name (inotify(7)). A context manager."""

    def __init__(self) -> None:
        self.descriptor = linux.inotify_init()
        self._names: dict[int, str] = {}

    def __enter__(self) -> Inotify:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def watch(self, name: str, path: str, mask: int) -> None:
        """Watch a path; nothing if that is not possible (a limit of the user's has been reached)."""
        with suppress(OSError):
            self._names[linux.inotify_add_watch(self.descriptor, path, mask)] = name

    def read(self) -> Iterator[tuple[str, int, str]]:
        """What has happened: the name that it was watched under, the mask, and the entry of a directory."""
        try:
            data = os.read(self.descriptor, 1 << 16)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size
            entry = data[offset : offset + length].split(b"\0", 1)[0]
            offset += length
            if watch in self._names:
                yield self._names[watch], mask, os.fsdecode(entry)


def _waiting(name: str, inside: int) -> list[Opener]:
    """Threads of the sandbox that wait to open a file of this name; those that wait for any, if none does for this.

    The kernel tells us before the opener has begun to wait, so it may be found only at a later look. One that does not
    wait at all (O_NONBLOCK) is never found.
    """
    before: set[Opener] = set()
    end, looks = time.monotonic() + _LOOK_S, 0
    while looks < _LEAST_LOOKS or time.monotonic() < end:  # on a busy machine a look takes its time
        looks += 1
        calls = [_opener(pid, tid, line) for pid, tid, line in _calls(inside)]
        named = [opener for opener, path in calls if opener is not None and os.path.basename(path) == name]
        if named:
            return named
        # By another name: who is seen twice waits; what opens something else is done by then.
        others = {opener for opener, _ in calls if opener is not None}
        if stayed := others & before:
            return list(stayed)
        before |= others
        time.sleep(_LOOK_AGAIN_S)
    return []


def _calls(inside: int) -> Iterator[tuple[int, int, list[str]]]:
    """Every thread of the sandbox that is in a system call, its process first: /proc/<tid>/syscall, proc(5)."""
    try:
        namespace = os.readlink(f"/proc/{inside}/ns/pid")
    except OSError:
        return
    for pid in os.listdir("/proc"):
        if not pid.isdecimal():
            continue
        try:
            if os.readlink(f"/proc/{pid}/ns/pid") != namespace:
                continue
            tids = os.listdir(f"/proc/{pid}/task")
        except OSError:
            continue
        for tid in tids:
            with suppress(OSError), open(f"/proc/{pid}/task/{tid}/syscall", encoding="ascii") as file:
                words = file.read().split()
                if len(words) > 3:
                    yield int(pid), int(tid), words


def _opener(pid: int, tid: int, words: list[str]) -> tuple[Opener | None, str]:
    places = _CALLS.get(os.uname().machine, {}).get(int(words[0])) if words[0].isdecimal() else None
    if places is None:
        return None, ""
    path, flags = places
    writing = flags is None or int(words[1 + flags], 16) & os.O_ACCMODE != os.O_RDONLY
    try:
        with open(f"/proc/{tid}/mem", "rb", buffering=0) as memory:
            text = b""
            memory.seek(int(words[1 + path], 16))
            while b"\0" not in text and len(text) < 4096 and (more := memory.read(16)):
                text += more
        with open(f"/proc/{tid}/cmdline", "rb") as file:
            program = file.read(4096).split(b"\0")[:-1]
    except OSError:
        return None, ""
    opener = Opener(
        pid=pid, writing=writing, program=tuple(word.decode(errors="replace") for word in program[:8])
    )
    return opener, os.fsdecode(text.split(b"\0")[0])
