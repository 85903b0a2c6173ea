"""Run a command in a sandbox that lives already (embedded runtime), confined as its first process is.

    this process ── fork ──▶ the guide: joins the cgroup and the namespaces ── fork ──▶ the command

Rule 1: entered are the namespaces of the sandbox's pid 1, held by a pidfd, so never those of a process that got its
        number meanwhile.
Rule 2: the order of user namespaces is from the outside to the inside: each other namespace is entered from the user
        namespace that owns it (setns(2) asks for CAP_SYS_ADMIN there).
Rule 3: until it has become the command, nothing in the sandbox can look into what enters: it is undumpable
        (PR_SET_DUMPABLE). The kernel does not do so by itself where the user owns the user namespace that is entered.
Rule 4: at the end there is no capability, no_new_privs is set and the seccomp filter is that of the sandbox: what
        `test_enter.py` compares with the first process.
Rule 5: on a terminal, the command leads a process group of its own pid namespace, in the foreground: ours has no number
        there, and a shell that asks for its group (dash) could not give the terminal back. When it stops, so do we.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
from contextlib import suppress

from cloister.errors import CloisterError, HostError
from cloister.runtimes import start_script
from cloister.sandbox.registry import Process, children, identify
from cloister.system import cgroup, linux
from cloister.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloister.sandbox.entry import Entry

# In the order of entering: the network's owner is the outermost user namespace (network/plumb.py).
_KINDS = (
    ("net", linux.CLONE_NEWNET),
    ("ipc", linux.CLONE_NEWIPC),
    ("uts", linux.CLONE_NEWUTS),
    ("cgroup", linux.CLONE_NEWCGROUP),
    ("pid", linux.CLONE_NEWPID),
    ("mnt", linux.CLONE_NEWNS),
)
_FIRST_AFTER_STANDARD = 3
_DESCRIPTORS = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Entered:
    """A command that runs in the sandbox: the guide, whose exit code is the command's, and the command."""

    guide: int
    command: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """What becomes of the entering process."""

    argv: list[str]
    environment: dict[str, str]
    directory: str
    elsewhere: bool
    seccomp: bytes
    foreground: bool


class GoneError(Exception):
    """The sandbox has ended, or has not been made yet."""


def enter(
    init: Process,
    entry: Entry,
    *,
    command: tuple[str, ...],
    environment: dict[str, str],
    directory: str,
    elsewhere: bool = True,
    foreground: bool = False,
) -> Entered:
    """Start `command` in the sandbox whose pid 1 is `init`, with this process's standard streams.

    Where there is no such directory in the sandbox, it starts in "/" if it may be `elsewhere`, and not at all if not.
    `foreground`: standard input is this process's terminal, which the command takes over; see `resume`.

    GoneError if the sandbox does not live; HostError if the kernel refuses.
    """
    with _Namespaces(init) as namespaces, open(entry.seccomp_file, "rb") as file:
        how = _Start(
            argv=start_script.start_argv(command, pids=entry.pids, memory_bytes=entry.memory_bytes),
            environment=environment,
            directory=directory,
            elsewhere=elsewhere,
            seccomp=file.read(),
            foreground=foreground,
        )
        reading, writing = os.pipe()
        us = os.getpid()
        guide = os.fork()
        if guide == 0:
            os.close(reading)
            _guide(us, namespaces, how, group=entry.cgroup, report=writing)
        os.close(writing)
    with open(reading, "rb") as pipe:
        report = pipe.read()
    answer = json.loads(report) if report else {"error": "it died"}
    if "error" in answer:
        os.waitpid(guide, 0)
        raise HostError(
            "the sandbox could not be entered",
            details=str(answer["error"]),
            resolution="run: cloister doctor",
        )
    return Entered(guide=guide, command=int(answer["pid"]))


class _Namespaces:
    """The namespaces of a sandbox, as open descriptors, and the ids that its processes have on the host."""

    def __init__(self, init: Process) -> None:
        self._open: list[int] = []
        try:
            self._pidfd = self._keep(os.pidfd_open(init.pid))
            proc = f"/proc/{init.pid}"
            self.others = [(kind, self._keep(_open(f"{proc}/ns/{name}"))) for name, kind in _KINDS]
            self.innermost = self._keep(_open(f"{proc}/ns/user"))
            with open(f"{proc}/status", encoding="utf-8", errors="replace") as file:
                ids = {
                    line.split()[0]: int(line.split()[1])
                    for line in file
                    if line.startswith(("Uid:", "Gid:"))
                }
            self.uid, self.gid = ids["Uid:"], ids["Gid:"]
            made = bool(children(init.pid))
        except (OSError, KeyError) as error:
            self.close()
            raise GoneError from error
        # The pidfd came first: what still is that process now was it all the time.
        if identify(init.pid) != init or not made:
            self.close()
            raise GoneError

    def __enter__(self) -> _Namespaces:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for descriptor in self._open:
            os.close(descriptor)
        self._open = []

    def join(self) -> None:
        """Enter all of them. Takes effect for the pid namespace with the next fork."""
        here = _inode(self._keep(_open("/proc/self/ns/user")))
        for kind, descriptor in self.others:
            owner = self._keep(fcntl.ioctl(descriptor, linux.NS_GET_USERNS))
            here = self._into(owner, here)
            linux.setns(descriptor, kind)
        self._into(self.innermost, here)

    def _into(self, user_namespace: int, here: tuple[int, int]) -> tuple[int, int]:
        there = _inode(user_namespace)
        if there != here:  # entering one's own is EINVAL
            linux.setns(user_namespace, linux.CLONE_NEWUSER)
        return there

    def _keep(self, descriptor: int) -> int:
        self._open.append(descriptor)
        return descriptor


def _guide(parent: int, namespaces: _Namespaces, how: _Start, *, group: str, report: int) -> None:
    """Never returns: exits as the command does."""
    code = CloisterError.exit_code
    try:
        linux.prctl(linux.PR_SET_DUMPABLE, 0)
        if group:
            cgroup.enter(cgroup.Group(directory=group))
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(namespaces.gid, namespaces.gid, namespaces.gid)
            os.setresuid(namespaces.uid, namespaces.uid, namespaces.uid)
        namespaces.join()
        linux.prctl(
            linux.PR_SET_PDEATHSIG, signal.SIGKILL
        )  # after all that changes credentials: that clears it
        if os.getppid() != parent:
            os._exit(code)
        ready, go = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(go)
            _become(how, ready)
        os.close(ready)
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTOU, signal.SIGTTIN):
            signal.signal(number, signal.SIG_IGN)  # the terminal's are the command's
        os.write(report, json.dumps({"pid": pid}).encode())
        os.close(report)
        os.close(go)
        code = os.waitstatus_to_exitcode(_ended(pid, foreground=how.foreground))
        code = 128 - code if code < 0 else code
    except BaseException as error:
        with suppress(OSError):  # the command has run: there is nobody to report to
            os.write(report, json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
    finally:
        os._exit(code)


def _ended(pid: int, *, foreground: bool) -> int:
    """Wait for the command. One of the foreground that stops stops the guide, until that is told to go on."""
    while True:
        _, status = os.waitpid(pid, os.WUNTRACED if foreground else 0)
        if not os.WIFSTOPPED(status):
            return status
        os.kill(os.getpid(), signal.SIGSTOP)
        with suppress(OSError):
            if os.tcgetpgrp(0) == os.getpgrp():  # not if it goes on in the background
                os.tcsetpgrp(0, pid)
            os.killpg(pid, signal.SIGCONT)


def _become(how: _Start, ready: int) -> None:
    """In the pid namespace: give everything up, then be the command. Never returns."""
    try:
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        os.read(ready, 1)  # the end of the stream: the guide lives, and has told our number
        if os.getppid() != 0:  # the guide is outside of this pid namespace; 1 would mean that it has died
            os._exit(CloisterError.exit_code)
        if how.foreground:
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # as tcsetpgrp(3) asks of the background
            os.setpgid(0, 0)
            with suppress(OSError):  # the terminal has been closed
                os.tcsetpgrp(0, os.getpid())
        for number in range(1, signal.NSIG):
            if (
                number not in (signal.SIGKILL, signal.SIGSTOP)
                and signal.getsignal(number) is not signal.SIG_DFL
            ):
                _reset(number)
        _chdir(how.directory, elsewhere=how.elsewhere)
        os.closerange(_FIRST_AFTER_STANDARD, _DESCRIPTORS)  # nothing is inherited by mistake (ATTACKS K-5)
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
        linux.drop_capabilities()
        linux.set_seccomp_filter(how.seccomp)
        os.execve(how.argv[0], how.argv, how.environment)
    except BaseException as error:
        os.write(2, f"cloister: the command could not be started in the sandbox: {error}\n".encode())
    finally:
        os._exit(CloisterError.exit_code)


def _reset(number: int) -> None:
    try:
        signal.signal(number, signal.SIG_DFL)
    except (OSError, ValueError):
        return  # one of those that libc keeps for itself


def _chdir(directory: str, *, elsewhere: bool) -> None:
    try:
        os.chdir(directory)
    except OSError:
        if not elsewhere:
            raise
        os.chdir("/")  # it was removed inside


def _open(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _inode(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino
