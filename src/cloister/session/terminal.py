"""The terminal is the sandbox's while the command runs, and must be as it was afterwards.

The command inherits the terminal itself: resize, Ctrl-C, Ctrl-Z and job control work as they do outside. TIOCSTI, by
which a program types for its parent shell, is denied by the seccomp filter (runtimes/seccomp.py).
"""

from __future__ import annotations

import os

from cloister.lean import signal


class Terminal:
    """A context manager: remembers the terminal's modes and foreground process group, and restores both."""

    def __init__(self) -> None:
        self._descriptor: int | None = None
        self._modes: list[object] = []
        self._group = 0

    def __enter__(self) -> Terminal:
        for descriptor in (0, 1, 2):
            if _is_terminal(descriptor):
                import termios

                self._descriptor = descriptor
                self._modes = list(termios.tcgetattr(descriptor))
                try:
                    self._group = os.tcgetpgrp(descriptor)
                except OSError:
                    self._group = 0  # a terminal, but not our controlling one
                break
        return self

    def is_ours(self) -> bool:
        """Whether this process is in the foreground of it, and neither end of a pipeline."""
        return self._descriptor == 0 and self._group == os.getpgrp() and _is_terminal(1)

    def take_back(self) -> None:
        """Make this process's group the foreground one again, if it was; the modes stay."""
        # Whoever is in the background is stopped for that, unless it ignores SIGTTOU (tcsetpgrp(3)).
        before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        try:
            if self._descriptor is not None and self._group == os.getpgrp():
                os.tcsetpgrp(self._descriptor, self._group)
        except OSError:
            return  # the terminal was closed under us
        finally:
            signal.signal(signal.SIGTTOU, before)

    def __exit__(self, *_: object) -> None:
        if self._descriptor is None:
            return
        import termios

        self.take_back()
        before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        try:
            if self._group in (0, os.getpgrp()):
                termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._modes)  # type: ignore[arg-type]  # as tcgetattr gave them
        except (OSError, termios.error):
            return  # the terminal was closed under us
        finally:
            signal.signal(signal.SIGTTOU, before)


def _is_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:
        return False
