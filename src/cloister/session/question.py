"""Ask the user whether a credential may be used, on the terminal if that is free, else by another command.

Rule 1: the terminal is asked only if the sandbox's command does not read it (its standard input is something else):
        what is typed there belongs to the command, and a sandbox must not answer its own question.
Rule 2: only a line that says yes is a yes.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from cloister.values import dataclass

_LINE_LIMIT_BYTES = 256
_YES = frozenset({b"y", b"yes"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question that waits. `terminal` is where its answer is read, if anywhere."""

    name: str
    terminal: int | None

    @staticmethod
    def put(name: str, text: str, tell: Callable[[str], None]) -> Question:
        """Show it."""
        terminal = _free_terminal()
        if terminal is None:
            tell(
                f"{text}\n  → in another terminal: cloister approve {name}   (or: cloister approve --deny {name})"
            )
        else:
            os.write(terminal, f"cloister: {text}\n  → allow it until this sandbox ends? [y/N] ".encode())
        return Question(name=name, terminal=terminal)

    def answer(self) -> bool | None:
        """What the user typed, once the terminal is readable; None if nothing can be read there."""
        if self.terminal is None:
            return None
        line = os.read(self.terminal, _LINE_LIMIT_BYTES)
        self.close()
        return line.strip().lower() in _YES

    def close(self) -> None:
        """Stop waiting."""
        if self.terminal is not None:
            os.close(self.terminal)


def _free_terminal() -> int | None:
    """The controlling terminal, unless the command reads it."""
    if os.isatty(0):
        return None
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return None
    if os.tcgetpgrp(terminal) != os.getpgrp():  # in the background: reading would stop us (SIGTTIN)
        os.close(terminal)
        return None
    return terminal
