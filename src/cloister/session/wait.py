"""Wait for the sandbox's command; pass signals on; notice when the gateway dies first.

Rule 1: signals are forwarded to the command, as `foreground.py` says; those that come before there is one wait.
Rule 2: no gateway, no sandbox: if it dies the command is killed, and the user is told.
Rule 3: no command, no sandbox: a program in it can stop its pid 1 (ptrace), which then never ends by itself.
"""

from __future__ import annotations

import errno
import os
import select

from cloister.errors import GatewayError, HostError
from cloister.lean import json, signal, suppress
from cloister.runtimes.embedded import Running
from cloister.sandbox import registry
from cloister.session.foreground import Signals
from cloister.session.gateway_process import Gateway

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.runtimes.mount_guard import Guard

PING_INTERVAL_MS = 4000
_RETRY_MS = 10
_UNREAPED_MS = 500  # by then a pid 1 that lives has noticed
_HOLDER_ENDED = "start it again; see whether the engine is well"
_GUARD_AFTER_MS = 50  # a command that ends before that costs no guard; until then one looks when it begins
_END_TIMEOUT_MS = 5000
_REPORT_TIMEOUT_MS = 3000
# Of a process that has just ended. EINVAL: the mount table of a zombie (fs/proc_namespace.c, mounts_open_common).
_GONE = frozenset({errno.ENOENT, errno.ESRCH, errno.EINVAL})


class Waiter:
    """Waits once. Signals are handled from construction on, so that none is lost while the sandbox starts."""

    def __init__(self, tell: Callable[[str], None], on_init: Callable[[int], None]) -> None:
        self._tell = tell
        self._on_init = on_init
        self.deliver: Callable[[int], bool] | None = None  # sends a signal where that pid is not seen here
        self._init: int | None = None  # host pid of the sandbox's pid 1
        self._made = False
        self._init_pidfd: int | None = None
        self._report = b""
        self._unreaped: int | None = None  # the command, if it had ended when last looked at
        self._signals = Signals(self._forward)

    def wait(self, running: Running, gateway: Gateway, guard: Callable[[int], Guard]) -> int:
        """Block until the sandbox has ended; returns its exit code. GatewayError if the gateway ended first.

        `guard` is asked for the guard of its mounts, by the host pid of its pid 1, once they are made.
        """
        self.until_ended(
            running.pid, gateway, running.status, lambda: self._read_report(running.status), guard
        )
        _, status = os.waitpid(running.pid, 0)
        while self._read_report(running.status):
            continue
        os.close(running.status)
        return self._code(status)

    def until_ended(
        self,
        pid: int,
        gateway: Gateway,
        watched: int | None,
        hear: Callable[[], bool],
        guard: Callable[[int], Guard] | None = None,
    ) -> None:
        """Block until process `pid` has ended; it is not waited for. GatewayError if the gateway ended first.

        `hear` is called when there is something to read from `watched`, until it says that this was the end; HostError
        if the holder's container ended, where a gateway in a container hears that.
        """
        guarding: Guard | None = None
        process = os.pidfd_open(pid)
        poll = select.poll()
        for descriptor in (process, watched, gateway.pidfd, gateway.control.fileno()):
            if descriptor is not None:
                poll.register(descriptor, select.POLLIN)
        try:
            while True:
                self._signals.flush()
                wait_ms = _RETRY_MS if self._signals.pending else PING_INTERVAL_MS
                if self._unreaped is not None:
                    wait_ms = min(wait_ms, _UNREAPED_MS)
                if guard is not None and guarding is None:
                    wait_ms = min(wait_ms, _GUARD_AFTER_MS)
                asked = gateway.question.terminal if gateway.question is not None else None
                if asked is not None:
                    poll.register(asked, select.POLLIN)
                ready = {descriptor for descriptor, _ in poll.poll(wait_ms)}
                if asked is not None:
                    poll.unregister(asked)
                    if asked in ready:
                        gateway.answer()
                if not ready and guard is not None and guarding is None:
                    guarding = self._guarded(guard, poll)
                elif not ready and not self._signals.pending:
                    gateway.ping(self._tell)
                    self._end_without_command()
                if guarding is not None and (not ready or guarding.fileno() in ready):
                    guarding.restore()
                if watched is not None and watched in ready and not hear():
                    poll.unregister(watched)
                if gateway.control.fileno() in ready and not gateway.read(self._tell):
                    poll.unregister(gateway.control.fileno())
                if process in ready:
                    break
                if gateway.holder_failure:
                    raise HostError(
                        gateway.holder_failure + ", so the sandbox was stopped", resolution=_HOLDER_ENDED
                    )
                if gateway.pidfd in ready or gateway.failure:
                    self._gateway_died(gateway)
        finally:
            os.close(process)
            if guarding is not None:
                guarding.close()

    def _end_without_command(self) -> None:
        before, self._unreaped = self._unreaped, self._ended_command()
        if before is None or before != self._unreaped or self._init_pidfd is None:
            return
        self._tell(
            "the command has ended, but a program of it had stopped the sandbox's first process: killed"
        )
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._init_pidfd, signal.SIGKILL)

    def _ended_command(self) -> int | None:
        """The command, if it has ended and nobody has noticed."""
        try:
            first = registry.children(self._init)[0] if self._init is not None else None
            with open(f"/proc/{first}/stat", "rb") as file:
                return first if file.read().rpartition(b")")[2].startswith(b" Z") else None
        except (OSError, ValueError, IndexError):
            return None

    def _guarded(self, guard: Callable[[int], Guard], poll: select.poll) -> Guard | None:
        """The guard of the mounts, once they are all made: of bubblewrap's, when the sandbox's pid 1 has a child."""
        if self._init is None:
            return None
        try:
            if not (self._made or registry.children(self._init)):
                return None
            guarding = guard(self._init)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return None
        poll.register(guarding.fileno(), select.POLLPRI)
        return guarding

    def _code(self, status: int) -> int:
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            return 128 - code  # bubblewrap itself was killed
        if code != 0 and b'"exit-code"' not in self._report:
            raise HostError(
                "bubblewrap could not make the sandbox; its message stands above",
                resolution="run: cloister doctor",
            )
        return code

    def init(self, running: Running) -> int | None:
        """Wait until the sandbox's pid 1 exists: its pid on the host; None if bubblewrap ended without one."""
        while self._init is None and self._read_report(running.status):
            continue
        return self._init

    def is_started(self, init: int, *, made: bool = False) -> None:
        """The sandbox's first process has this number: signals are for its child, or for itself.

        `made`: all of the sandbox is.
        """
        self._init, self._made = init, made
        with suppress(ProcessLookupError):
            self._init_pidfd = os.pidfd_open(init)
        self._on_init(init)

    def kill(self, running: Running) -> None:
        """End the sandbox, and wait until nothing of it runs.

        Its pid 1 is killed by name: a program in it could have undone its PR_SET_PDEATHSIG. It ends last of its pid
        namespace, so its end is everybody's.
        """
        # bubblewrap reports its child before it lets it run: killed in between, it would leave one that waits for ever.
        if self._init_pidfd is None and _readable(running.status, _REPORT_TIMEOUT_MS):
            with suppress(OSError):  # of `on_init`: the disk may be full
                self._read_report(running.status)
        with suppress(ProcessLookupError):
            if self._init_pidfd is not None:
                signal.pidfd_send_signal(self._init_pidfd, signal.SIGKILL)
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(running.pid, signal.SIGKILL)
            os.waitpid(running.pid, 0)
        if self._init_pidfd is not None:
            _readable(self._init_pidfd, _END_TIMEOUT_MS)

    def _gateway_died(self, gateway: Gateway) -> None:
        gateway.read(self._tell)
        if gateway.failure and not gateway.ready:
            raise gateway.died("it ended before it served")
        raise GatewayError(
            "the gateway ended, so the sandbox was stopped: without it nothing may leave",
            details=gateway.failure,
            resolution="start it again; `cloister logs` shows what happened before",
        )

    def _read_report(self, descriptor: int) -> bool:
        part = os.read(descriptor, 4096)
        self._report += part
        if self._init is None and b"\n" in self._report:
            first = json.loads(self._report.split(b"\n", 1)[0])
            self.is_started(int(first["child-pid"]))
        return bool(part)

    def _forward(self, number: int) -> bool:
        """Send a signal to the command: the child of the sandbox's pid 1, which itself ignores signals."""
        if self._init is None:
            return self.deliver(number) if self.deliver is not None else False
        try:
            children = registry.children(self._init)
            if not children:
                return False  # bubblewrap is still making the sandbox
            os.kill(children[0], number)
        except (OSError, ValueError):
            return True  # it has ended; poll tells
        return True


def _readable(descriptor: int, timeout_ms: int = 0) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(timeout_ms))
