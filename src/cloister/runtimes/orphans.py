"""What bubblewrap leaves if it is killed while it makes a sandbox: its child, which waits for it for ever.

The child asks to die with it (PR_SET_PDEATHSIG) only once that wait is over, and holds the command's standard output
meanwhile. So until the sandbox is made, such a child falls to this process (PR_SET_CHILD_SUBREAPER), which ends it.

Rule 1: only a process of a deeper pid namespace is ended: what a program of the user's has left in the background
        falls to this process too, and is none of ours.
"""

from __future__ import annotations

import os

from cloister.lean import signal, suppress
from cloister.sandbox import registry
from cloister.system import linux


class Adopted:
    """From its beginning until `made`, or until it ends the orphans."""

    def __init__(self) -> None:
        self._adopts = False

    def __enter__(self) -> Adopted:
        linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
        self._adopts = True
        return self

    def made(self) -> None:
        """From now on bubblewrap's child dies with it."""
        linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 0)
        self._adopts = False

    def __exit__(self, *_: object) -> None:
        if self._adopts:
            self.made()
            own = _depth("self")
            for pid in registry.children(os.getpid()):
                if _depth(str(pid)) > own:
                    _end(pid)


def _depth(pid: str) -> int:
    """How many pid namespaces know a process (proc(5), NSpid); 0 if it is gone."""
    with suppress(OSError), open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("NSpid:"):
                return len(line.split()) - 1
    return 0


def _end(pid: int) -> None:
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
