"""Kill whatever is left in a sandbox's network namespace, once its session is dead.

The sandbox dies with the session by PR_SET_PDEATHSIG, with one gap: bubblewrap's child waits for bubblewrap on an
eventfd(2), which knows no end of file, before it arms a signal of its own. Killed in between, bubblewrap leaves a
child that waits for ever, holds the caller's terminal and is named by no record. The namespace names it.

Rule 1: a process is killed through a pidfd that was opened before it was looked at, so never another with its pid.
Rule 2: never in this process's own namespace: that is no sandbox's, and everything of the user's is in it.
"""

from __future__ import annotations

import os
import select
import signal

_END_TIMEOUT_MS = 1000
_ROUNDS = 50  # each sees what the killed of the last one were just forking


def evict(network_namespace: int) -> int:
    """Kill all processes in the namespace of that descriptor, and wait for their end; how many there were."""
    wanted, ours = os.fstat(network_namespace), os.stat("/proc/self/ns/net")
    if (wanted.st_dev, wanted.st_ino) == (ours.st_dev, ours.st_ino):
        return 0
    killed = 0
    for _ in range(_ROUNDS):
        found = [
            pid for name in os.listdir("/proc") if name.isdecimal() and (pid := int(name)) != os.getpid()
        ]
        ended = [_kill(pid, wanted) for pid in found]
        if not any(ended):
            break
        killed += sum(ended)
    return killed


def _kill(pid: int, wanted: os.stat_result) -> bool:
    """Kill one process if it is in the namespace, and wait a little for its end."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        namespace = os.stat(f"/proc/{pid}/ns/net")  # fails for a zombie, and for another user's process
        if (namespace.st_dev, namespace.st_ino) != (wanted.st_dev, wanted.st_ino):
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except OSError:
        return False
    else:
        _wait(descriptor)
        return True
    finally:
        os.close(descriptor)


def _wait(pidfd: int) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll(_END_TIMEOUT_MS)
