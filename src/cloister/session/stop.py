"""End a live sandbox from outside: its processes get SIGTERM and time, then everything of it ends.

Rule 1: a process is signalled by pidfd, after it was seen to be in the sandbox's pid namespace.
Rule 2: when this returns, the session has cleaned up, or is dead and the next sweep does it.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from cloister.config.directories import Project
from cloister.sandbox import catalogue, registry
from cloister.session import prepare, said

GRACE_S = 5.0
_END_TIMEOUT_S = 20.0


def end(
    project: Project, record: registry.Record, tell: Callable[[str], None], *, grace_s: float = GRACE_S
) -> None:
    """Stop a sandbox that stays, clean up, and tell what its supervisor had to say about its end."""
    log = catalogue.log_of(project, record.name)
    before = said.size(log)
    stop(record, grace_s=grace_s)
    for notice in said.notices(log, before):
        tell(notice)
    prepare.clean_up(project.shared, tell)


def stop(record: registry.Record, *, grace_s: float = GRACE_S) -> None:
    """Stop it. Idempotent: one that has ended meanwhile is stopped."""
    session = _pidfd(record.session)
    if session is None:
        return
    try:
        if record.init is not None:
            _end_processes(record.init, grace_s)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(session, signal.SIGTERM)
        if not _ended(session, _END_TIMEOUT_S):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(session, signal.SIGKILL)
            _ended(session, _END_TIMEOUT_S)
    finally:
        os.close(session)


def _end_processes(init: registry.Process, grace_s: float) -> None:
    """SIGTERM for what runs in the sandbox, but for its first two processes, and time to end."""
    try:
        first = registry.children(init.pid)[:1]
    except (OSError, ValueError):
        return
    open_ones: list[int] = []
    try:
        for pid in inside(init):
            if pid == init.pid or pid in first:
                continue
            with suppress(OSError):
                descriptor = os.pidfd_open(pid)
                open_ones.append(descriptor)
                signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        for descriptor in open_ones:
            _ended(descriptor, max(0.0, deadline - time.monotonic()))
    finally:
        for descriptor in open_ones:
            os.close(descriptor)


def inside(init: registry.Process) -> Iterator[int]:
    """The host's numbers of the processes in a sandbox's pid namespace, as far as this user may see them."""
    try:
        namespace = os.readlink(f"/proc/{init.pid}/ns/pid")
    except OSError:
        return
    if registry.identify(init.pid) != init:
        return
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with suppress(OSError):
                if os.readlink(f"/proc/{name}/ns/pid") == namespace:
                    yield int(name)


def _pidfd(process: registry.Process) -> int | None:
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        return None
    if registry.alive(process):
        return descriptor
    os.close(descriptor)
    return None


def _ended(pidfd: int, timeout_s: float) -> bool:
    return bool(select.select([pidfd], [], [], timeout_s)[0])
