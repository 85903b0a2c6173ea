"""`cloister exec` in a sandbox of a container engine: run the engine's own client, which passes on no signals.

Rule 1: the engine gives a later process what the first one has: no capability, no new privileges, the same filter,
        user, mounts and limits; nothing is passed here that would change one of them.
Rule 2: on the path that is measured: one fork and execve, and nothing is asked before.
Rule 3: a signal that this process gets goes to the command (entered.py); the client itself survives Ctrl-C, to tell how
        the command ended.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from typing import NoReturn

from cloister.errors import HostError
from cloister.runtimes import oci_exec_argv
from cloister.session import entered
from cloister.session.foreground import Signals
from cloister.session.terminal import Terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.sandbox.registry import Record

_RETRY_MS = 10
_SEARCH_S = 3.0


def execute(
    record: Record, command: tuple[str, ...], *, environment: Mapping[str, str], directory: str
) -> int:
    """Run it; returns the client's exit code, which is the command's. HostError if the client is gone."""
    container = record.container
    if container is None:
        raise TypeError("not a container's sandbox")
    if not os.access(container.program, os.X_OK):
        raise HostError(
            f"{container.program!r} cannot be started",
            resolution=f"see whether {container.engine} is installed still",
        )
    names = oci_exec_argv.Names(sandbox=record.sandbox_id, project="")
    theirs = dict(container.environment)

    def within(mark: str, number: int) -> bool:
        from cloister.system import proc  # a signal is rare

        argv = [container.program, *oci_exec_argv.send_signal(names, mark, number)]
        try:
            return not proc.run(argv, environment=theirs, timeout_s=_SEARCH_S).code
        except OSError:  # TimeoutError too
            return False

    here = entered.Command(record.init, within if container.has_sh else None)
    signals = Signals(here.send, from_terminal=True)
    marked = (*environment.items(), (entered.VARIABLE, here.mark))
    text, others = oci_exec_argv.environment_file(marked)
    others = tuple((name, value) for name, value in others if name not in theirs)
    descriptor = os.memfd_create("cloister-environment", 0)  # without MFD_CLOEXEC: the client reads it
    os.write(descriptor, text)
    os.lseek(descriptor, 0, os.SEEK_SET)
    arguments = oci_exec_argv.execute(
        names,
        command,
        directory=directory,
        terminal=all(stream.isatty() for stream in (sys.stdin, sys.stdout)),
        environment=descriptor,
        passed=tuple(name for name, _ in others),
        has_sh=container.has_sh,
        seen=record.init is not None,
        pids=container.pids,
        memory_bytes=container.memory_bytes,
    )
    with Terminal():
        client = os.fork()
        if client == 0:
            _become(container.program, arguments, {**theirs, **dict(others)})
        return _wait(client, here, signals)


def _become(program: str, arguments: list[str], environment: dict[str, str]) -> NoReturn:
    """Be the client."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # which Go's runtime respects
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it
        os.execve(program, [program, *arguments], environment)
    except OSError as error:
        os.write(2, f"cloister: {program!r} cannot be started: {error.strerror}\n".encode())
    finally:
        os._exit(HostError.exit_code)


def _wait(client: int, command: entered.Command, signals: Signals) -> int:
    """Until the client has ended; its exit code, 128 + n if a signal ended it."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writing)  # a handler that has run does not end a poll
    process = os.pidfd_open(client)
    poll = select.poll()
    for descriptor in (process, reading):
        poll.register(descriptor, select.POLLIN)
    until = 0.0
    while True:
        signals.flush()
        if not signals.pending:
            until = time.monotonic() + _SEARCH_S
        elif not command.can_be_seen or time.monotonic() > until:
            command.leave_to(client)
            continue
        ready = {one for one, _ in poll.poll(_RETRY_MS if signals.pending else None)}
        if reading in ready:
            os.read(reading, 1 << 10)
        if process in ready:
            break
    _, status = os.waitpid(client, 0)
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code
