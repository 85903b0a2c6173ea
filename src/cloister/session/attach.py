"""`cloister exec`: one more command in a sandbox that lives.

Rule 1: the command has the terminal, as in `run`; a signal that this process gets alone is forwarded.
Rule 2: on the path that is measured (DESIGN, "exec"): nothing is imported that entering does not need.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import suppress

from cloister.errors import CloisterError
from cloister.sandbox import entry, environment
from cloister.sandbox.registry import Record
from cloister.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloister.session.terminal import Terminal


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run. `directory` is a path in the sandbox; empty: where the caller stands, or the workspace."""

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    directory: str = ""


def execute(record: Record, command: Command, environ: Mapping[str, str]) -> int:
    """Run it to its end; returns its exit code, as `session.run.run` does. CloisterError if the sandbox is gone."""
    if record.container is not None:
        from cloister.session import container_exec

        return container_exec.execute(
            record,
            command.argv,
            environment={**_shown(environ), **dict(command.environment)},
            directory=command.directory or here(record.workspace),
        )
    from cloister.runtimes import enter  # deferred, all three: the engine's client needs none of them
    from cloister.session import foreground
    from cloister.session import terminal as terminals

    how = entry.load(f"{record.public_directory}{entry.SUFFIX}")
    if record.init is None or how is None:
        raise gone(record)
    variables = {**dict(how.environment), **_shown(environ), **dict(command.environment)}
    process = _Process()
    signals = foreground.Signals(process.send)
    with terminals.Terminal() as terminal:
        try:
            entered = enter.enter(
                record.init,
                how,
                command=command.argv,
                environment=variables,
                directory=command.directory or here(how.workspace),
                elsewhere=not command.directory,
                foreground=terminal.is_ours(),
            )
        except enter.GoneError:
            raise gone(record) from None
        process.is_started(entered.command)
        signals.flush()
        status = _ended(entered.guide, terminal)
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _ended(guide: int, terminal: Terminal) -> int:
    """Wait for the guide. If it stops (Ctrl-Z), this process's shell gets the terminal back, and a stopped job."""
    while True:
        _, status = os.waitpid(guide, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            return status
        terminal.take_back()
        os.killpg(
            0, signal.SIGTSTP
        )  # here it goes on when the shell says so; at once if there is no such shell
        with suppress(ProcessLookupError):
            os.kill(guide, signal.SIGCONT)


def gone(record: Record) -> CloisterError:
    """What to say when it does not live any more."""
    return CloisterError(
        f"the sandbox {record.name or record.sandbox_id!r} has ended",
        resolution="start it again: cloister up",
    )


def _shown(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: environ[name] for name in environment.TERMINAL if name in environ}


def here(workspace: str) -> str:
    """The caller's directory, where the sandbox has it too."""
    with suppress(OSError):
        current = os.path.realpath(os.getcwd())
        if current == workspace or current.startswith(f"{workspace}/"):
            return current
    return workspace


class _Process:
    """The command, held by a descriptor, so that no signal reaches another process with its number."""

    def __init__(self) -> None:
        self._pidfd: int | None = None

    def is_started(self, pid: int) -> None:
        """It has this number; it may have ended already."""
        try:
            self._pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._pidfd = -1

    def send(self, number: int) -> bool:
        """Pass a signal on; False before there is a command."""
        if self._pidfd is None:
            return False
        with suppress(OSError):  # it has ended; who waits for it sees that
            signal.pidfd_send_signal(self._pidfd, number)
        return True


def shell(record: Record) -> tuple[str, ...]:
    """The user's shell there, as a log-in shell."""
    how = entry.load(f"{record.public_directory}{entry.SUFFIX}")
    if how is None:
        raise gone(record)
    return (how.shell, "-l")
