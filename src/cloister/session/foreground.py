"""Signals that reach this process and are meant for the sandbox's command.

Rule 1: a signal that this process gets alone (`kill`, `timeout`) is forwarded to the command; one from the terminal has
        reached it already, being in the foreground process group, and is only survived here.
Rule 2: handled from construction on: what comes before there is a command waits for it.
"""

from __future__ import annotations

import os

from cloister.lean import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_FROM_TERMINAL = frozenset({signal.SIGINT, signal.SIGQUIT})


class Signals:
    """Collects signals and gives them to `send`, which answers False as long as there is nobody to get them.

    `from_terminal`: also those of the terminal, for a command that does not have it.
    """

    def __init__(self, send: Callable[[int], bool], *, from_terminal: bool = False) -> None:
        self.pending: list[int] = []
        self._from_terminal = from_terminal
        self._send = send
        self._sends = False
        for number in FORWARDED:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup(1) stays in force
                signal.signal(number, self._on_signal)

    def flush(self) -> None:
        """Send what waits, once there is a command."""
        if self._sends:  # a signal came while one was being sent: that goes on with it
            return
        self._sends = True
        try:
            while self.pending and self._send(self.pending[0]):
                self.pending.pop(0)
        finally:
            self._sends = False

    def _on_signal(self, number: int, _frame: object) -> None:
        if number in _FROM_TERMINAL and not self._from_terminal and in_foreground():
            return  # the command has got it from the terminal
        self.pending.append(number)
        self.flush()


def in_foreground() -> bool:
    """Whether this process is in the terminal's foreground process group."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    finally:
        os.close(terminal)
