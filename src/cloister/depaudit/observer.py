"""Watch one sandbox from outside while its command runs: programs started, canaries opened, files written.

The session that makes the sandbox is a child process of ours; the plumber sends us the listener of exec_watch.py before
the first program starts, and that one waits until everything else here is in place.

Rule 1: bounded: PROCESSES_LIMIT programs are kept, the rest is counted; the command ends at its deadline.
Rule 2: whatever is odd about one event costs that event, never the loop: while we do not answer, nothing starts.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace

from cloister.depaudit import openers, scripts, snapshot, started
from cloister.depaudit.observation import Opened, Process, Script, Written
from cloister.depaudit.stage import Stage
from cloister.runtimes import exec_watch, start_script

PROCESSES_LIMIT = 5000
SCRIPTS_LIMIT = 500
OPENINGS_LIMIT = 500
WRITTEN_LIMIT = 10_000
_RENEW_MS = 2
_GRACE_S = 5.0
_WRITES = openers.IN_CREATE | openers.IN_MOVED_TO | openers.IN_CLOSE_WRITE
# Directories in which code that others run is planted; what comes and goes there is seen.
_WATCHED_DIRECTORIES = ("~", "~/.ssh", "~/.config", ".", "./.git", "./.git/hooks")


@dataclass(slots=True, kw_only=True)
class Seen:
    """What has been seen so far."""

    scripts: list[Script] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    left_out: int = 0
    opened: list[Opened] = field(default_factory=list)
    written: dict[str, Written] = field(default_factory=dict)  # as inotify tells it
    before: dict[str, snapshot.File] = field(default_factory=dict)
    timed_out: bool = False
    begun: bool = False  # the command itself was started


class Observer:
    """Watches until the session has ended. `channel` is our end of the socket that the plumber sends to."""

    def __init__(self, stage: Stage, workspace: str, channel: socket.socket) -> None:
        self.seen = Seen()
        self._stage = stage
        self._workspace = workspace
        self._channel = channel
        self._listener = -1
        self._known: dict[int, Process] = {}  # by pid, as the host counts: the last program of each
        self._command = 0
        self._command_pidfd = -1
        self._starts = 0
        self._openings: dict[Opened, int] = {}
        self._opens: dict[str, int] = {}  # by canary: openings that nobody has been found for yet
        self._poll = select.poll()

    def watch(self, session: int, *, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Answer and note until the process `session` ends, or has been made to."""
        deadline = clock() + timeout_s
        with ExitStack() as stack:
            leases = stack.enter_context(openers.Leases(self._stage.watched()))
            inotify = stack.enter_context(openers.Inotify())
            self._watch_places(inotify)
            process = os.pidfd_open(session)
            stack.callback(os.close, process)
            for descriptor in (process, self._channel.fileno(), leases.wakeup, inotify.descriptor):
                self._poll.register(descriptor, select.POLLIN)
            while True:
                wait_ms = max(0, int((deadline - clock()) * 1000))
                if not leases.complete:
                    wait_ms = min(wait_ms, _RENEW_MS)
                ready = {descriptor for descriptor, _ in self._poll.poll(wait_ms)}
                self._opening(leases)
                self._changes(inotify)
                if self._channel.fileno() in ready:
                    self._take_listener()
                if self._listener in ready and not self._answer():
                    self._poll.unregister(self._listener)
                leases.renew()
                if process in ready:
                    break
                if clock() >= deadline:
                    deadline = clock() + _GRACE_S
                    self._end(session)
            self._opening(leases)
            self._changes(inotify)
        self._settle()

    def close(self) -> None:
        """Let go of what the sandbox was watched by."""
        for descriptor in (self._listener, self._command_pidfd):
            if descriptor >= 0:
                os.close(descriptor)
        self._channel.close()

    # Programs.

    def _take_listener(self) -> None:
        self._poll.unregister(self._channel.fileno())
        with suppress(OSError):
            _, descriptors, _, _ = socket.recv_fds(self._channel, 16, 1)
            if descriptors:
                self._listener = descriptors[0]
                self._poll.register(self._listener, select.POLLIN)
                # Everything of ours in the home has been made by now, and nothing of theirs has begun.
                self.seen.before = snapshot.take(self._stage.roots)

    def _answer(self) -> bool:
        """Note one program, and let it start. False if none will come any more."""
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        if not any(event & select.POLLIN for _, event in poll.poll(0)):
            return False  # hung up: nobody is left
        start = exec_watch.receive(self._listener)
        if start is None:
            return True
        try:
            call = started.read(start)
            if call is not None and call.exists:
                self._note(call, start.tid)
        except Exception:  # whatever the sandbox has put there: this one is not described
            self.seen.left_out += 1
        finally:
            exec_watch.let_go(self._listener, start)
        return True

    def _note(self, call: started.Call, tid: int) -> None:
        self._starts += 1
        if self._command == 0:
            # First bubblewrap, then its shell, which becomes the command.
            if start_script.is_start(call.arguments):
                self._command = call.pid
                with suppress(OSError):
                    self._command_pidfd = os.pidfd_open(call.pid)
            return
        self.seen.begun = True
        parent = self._known.get(call.pid)
        known = parent or (self._ancestor(call.parent) if self._known else None)
        inherited = known.script if known is not None else None
        process = Process(
            pid=call.pid,
            parent=parent.parent if parent is not None else known.pid if known is not None else 0,
            path=self._shown(call.path),
            arguments=call.arguments,
            directory=self._shown(call.directory),
            script=self._script(call, tid, inherited),
        )
        self._known.pop(call.pid, None)  # the youngest stands last
        self._known[call.pid] = process
        if len(self._known) > 2 * PROCESSES_LIMIT:
            self._known = {pid: one for pid, one in self._known.items() if os.path.exists(f"/proc/{pid}")}
        if len(self.seen.processes) < PROCESSES_LIMIT:
            self.seen.processes.append(process)
        else:
            self.seen.left_out += 1

    def _ancestor(self, pid: int | None) -> Process | None:
        """The nearest process that we know, from `pid` upwards.

        One that has outlived its parents hides where it comes from. Installers do not do so: it is the last script's.
        """
        for _ in range(64):
            if pid is None or pid <= 1:
                break
            if pid in self._known:
                return self._known[pid]
            pid = started.parent_of(pid)
        return next((one for one in reversed(self._known.values()) if one.script is not None), None)

    def _script(self, call: started.Call, tid: int, inherited: int | None) -> int | None:
        """The script that a program belongs to: the one that it begins, or that of its parent."""
        found = scripts.recognise(
            call.path, call.arguments, call.environment, call.directory, workspace=self._workspace
        )
        if found is None:
            return inherited
        if not found.package:
            name, version = started.package_of(tid)
            found = replace(found, package=name, version=version)
        if inherited is not None:
            found = replace(found, own=False)  # a script can say of itself what it likes
            around = self.seen.scripts[inherited]
            if (around.package, around.stage) == (found.package, found.stage):
                return inherited
        if found not in self.seen.scripts:
            if len(self.seen.scripts) >= SCRIPTS_LIMIT:
                return inherited
            self.seen.scripts.append(found)
        return self.seen.scripts.index(found)

    def _shown(self, path: str) -> str:
        if path.startswith(f"{self._workspace}/"):
            return f"./{path[len(self._workspace) + 1 :]}"
        return "." if path == self._workspace else path

    # Files.

    def _watch_places(self, inotify: openers.Inotify) -> None:
        for name, path in self._stage.watched().items():
            inotify.watch(name, path, openers.IN_OPEN)
        for shown in _WATCHED_DIRECTORIES:
            path = self._stage.roots.get(shown) or self._stage.locate(shown)
            inotify.watch(f"{shown}/", path, _WRITES)

    def _opening(self, leases: openers.Leases) -> None:
        for name, found in leases.broken(self._command or os.getpid()):
            if not found:  # it does not wait (O_NONBLOCK), or has been killed
                self._count_opening(Opened(name=name, writing=False, script=self._running_script()))
            for opener in found:
                known = self._ancestor(opener.pid)
                script = known.script if known is not None else None
                self._count_opening(
                    Opened(name=name, writing=opener.writing, program=opener.program, script=script)
                )
                self._opens[name] = self._opens.get(name, 0) - 1

    def _changes(self, inotify: openers.Inotify) -> None:
        for name, mask, entry in inotify.read():
            if not name.endswith("/"):
                if mask & openers.IN_OPEN and self._listener >= 0:
                    self._unknown_opener(name)
            elif (
                not mask & openers.IN_ISDIR and self._listener >= 0 and len(self.seen.written) < WRITTEN_LIMIT
            ):
                path = f"{name}{entry}"
                how = "changed" if path in self.seen.before else "new"
                self.seen.written.setdefault(path, Written(path=path, how=how, script=self._running_script()))

    def _unknown_opener(self, name: str) -> None:
        """Count an opening; one more than was told by leases is of somebody who did not wait."""
        self._opens[name] = self._opens.get(name, 0) + 1
        if self._opens[name] > 0:
            self._opens[name] = 0
            self._count_opening(Opened(name=name, writing=False, script=self._running_script()))

    def _count_opening(self, opened: Opened) -> None:
        if opened in self._openings or len(self._openings) < OPENINGS_LIMIT:
            self._openings[opened] = self._openings.get(opened, 0) + 1

    def _running_script(self) -> int | None:
        """The script of the youngest process that still runs; several may."""
        for process in reversed(self._known.values()):
            if process.script is not None and os.path.exists(f"/proc/{process.pid}"):
                return process.script
        return None

    # The end.

    def _end(self, session: int) -> None:
        """The deadline has passed: end the command; the second time, everything."""
        number = signal.SIGKILL if self.seen.timed_out else signal.SIGTERM
        self.seen.timed_out = True
        with suppress(OSError):
            if self._command_pidfd >= 0:
                signal.pidfd_send_signal(self._command_pidfd, number)
            else:
                os.kill(session, number)

    def _settle(self) -> None:
        """Sum up equal openings."""
        self.seen.opened = [replace(opened, times=times) for opened, times in self._openings.items()]


def written(seen: Seen, stage: Stage) -> tuple[Written, ...]:
    """What two snapshots tell, with the scripts that ran when it was seen, and what was there only in between."""
    told = snapshot.difference(seen.before, snapshot.take(stage.roots))
    paths = {one.path for one in told}
    found = [
        replace(one, script=seen.written[one.path].script) if one.path in seen.written else one
        for one in told
    ]
    passing = (
        replace(one, how="passing")
        for path, one in seen.written.items()
        if path not in paths and path not in seen.before
    )
    return (*found, *passing)
