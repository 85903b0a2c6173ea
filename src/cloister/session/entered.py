"""Find a command that has entered a container's sandbox, and send it signals, which an engine's client does not do.

Rule 1: it is known by a variable of its environment, which only it and what it starts have; of these, it is the one
        that no process of the sandbox has started. One that has thrown its environment away (`env -i`) is the only
        newer process of that kind without such a variable, or is not found.
Rule 2: whatever the sandbox pretends, only a process of it gets a signal. Where none of it is seen from here (an engine
        in a virtual machine, or on another one), a process in the sandbox sends it (start_script.py); where its image
        has no shell, the engine's client gets it, and the command lives on.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from cloister.sandbox import registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

VARIABLE = "CLOISTER_ENTERED"


class Command:
    """A command that is about to enter the sandbox whose pid 1 is `init`, None if that is not seen from here.

    `mark`: what VARIABLE is to be in its environment. `within`: sends a signal (the second) to the command of a mark
    from within the sandbox; False if it finds none.
    """

    def __init__(
        self, init: registry.Process | None, within: Callable[[str, int], bool] | None = None
    ) -> None:
        self.mark = os.urandom(8).hex()
        self._init = init
        self._within = within if init is None else None
        self._client: int | None = None
        self._pidfd: int | None = None
        me = registry.identify(os.getpid())
        self._not_before = me.started if me is not None else 0

    @property
    def can_be_seen(self) -> bool:
        """Whether it will be found, once it runs."""
        return self._init is not None or self._within is not None

    def send(self, number: int) -> bool:
        """Pass a signal on; False while there is no such process yet."""
        if self._pidfd is None:
            self._pidfd = self._find(self.mark)
        if self._within is not None and self._within(self.mark, number):
            return True
        if self._pidfd is None and self._client is not None:
            with suppress(ProcessLookupError):
                os.kill(self._client, number)
            return True
        if self._pidfd is None:
            return False
        with suppress(OSError):  # it has ended; who waits for the client sees that
            signal.pidfd_send_signal(self._pidfd, number)
        return True

    def leave_to(self, client: int) -> None:
        """Search it once more, without its mark; from now on the client gets what cannot be passed on."""
        self._client = client
        if self._pidfd is None:
            self._pidfd = self._find("")

    def _find(self, mark: str) -> int | None:
        if self._init is None:
            return None
        from cloister.session import stop  # deferred: a signal is rare

        inside = set(stop.inside(self._init))
        found = []
        for pid in inside - {self._init.pid}:
            with suppress(OSError, ValueError, IndexError):
                descriptor = os.pidfd_open(pid)
                if not self._is_it(pid, mark, inside):
                    os.close(descriptor)
                    continue
                found.append(descriptor)
        if len(found) == 1:
            return found[0]
        for descriptor in found:
            os.close(descriptor)
        return None

    def _is_it(self, pid: int, mark: str, inside: set[int]) -> bool:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        parent, started = int(fields[1]), int(fields[19])
        if parent in inside or started < self._not_before:
            return False
        with open(f"/proc/{pid}/environ", "rb") as environ:
            variables = environ.read().split(b"\0")
        marks = [one for one in variables if one.startswith(f"{VARIABLE}=".encode())]
        return marks == ([f"{VARIABLE}={mark}".encode()] if mark else [])
