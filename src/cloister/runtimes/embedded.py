"""The embedded runtime: bubblewrap in an exit-less network namespace, rootless, without a daemon.

The process that `launch` forks is first the *plumber* (namespaces, sockets) and then, by execve,
bubblewrap: the network namespace needs no name and no holder, and everything dies with one pid.

Rule 1: nothing of the session's descriptors, environment or signal dispositions reaches the sandbox but
        what is listed here.
Rule 2: a failure before bubblewrap runs is reported through a pipe and raised in the session; nothing is
        left behind.
Rule 3: the session's death is bubblewrap's death (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import errno
import fcntl
import os

from cloister.errors import CloisterError, HostError
from cloister.lean import json, signal, socket
from cloister.network import plumb
from cloister.runtimes import bwrap_argv
from cloister.sandbox.spec import Data, SandboxSpec
from cloister.system import cgroup, linux
from cloister.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloister.runtimes.staging import Staging

_STANDARD = (0, 1, 2)
_LAST_PLACED = max(bwrap_argv.READY, bwrap_argv.GO)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What a start needs beside the spec. Descriptors stay the caller's."""

    bwrap: str
    features: bwrap_argv.BwrapFeatures
    seccomp_file: str
    ca_bundle: int  # read end of the pipe that the gateway writes the CA bundle to
    empty_file: str  # below a directory that the spec binds
    rlimits: bool  # no cgroup holds the limits
    group: cgroup.Group | None
    gateway: socket.socket  # the plumber sends the sockets here
    bound: list[tuple[int, list[int]]]
    observer: int | None = None  # a Unix socket that gets the listener of exec_watch.py


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A started sandbox: bubblewrap's pid, and the pipe on which it reports (JSON, `--json-status-fd`)."""

    pid: int
    status: int
    ready: int  # gets a byte once all mounts are made
    go: int  # a line lets the command start, the end of the stream ends it


def launch(spec: SandboxSpec, how: Launch) -> Running:
    """Start the sandbox. Returns once bubblewrap runs; HostError if the host does not allow it."""
    staged: Staging | None = None
    empty_file = how.empty_file
    if os.geteuid() == 0:
        from cloister.runtimes import staging  # here and below: for root alone

        staged = staging.plan(spec)
        spec, empty_file = staging.rebase(spec, staged), staging.locate(empty_file, staged)
    seccomp = _high(os.open(how.seccomp_file, os.O_RDONLY | os.O_CLOEXEC))
    ca_bundle = _high(os.dup(how.ca_bundle))
    status_read, status_write = _pipe()
    failure_read, failure_write = _pipe()
    ready_read, ready_write = _pipe()
    go_read, go_write = _pipe()
    data = {mount.target: _memfd(mount.content) for mount in spec.mounts if isinstance(mount, Data)}
    options = _memfd(b"")
    descriptors = bwrap_argv.Descriptors(
        options=options, ca_bundle=ca_bundle, data=data, seccomp=seccomp, status=status_write
    )
    rendered = bwrap_argv.options(spec, features=how.features, descriptors=descriptors, empty_file=empty_file)
    _fill(options, bwrap_argv.options_text(rendered))
    argv = bwrap_argv.argv(spec, bwrap=how.bwrap, descriptors=descriptors, rlimits=how.rlimits)
    inherited = {ca_bundle, options, seccomp, status_write, *data.values()}
    placed = {bwrap_argv.READY: ready_write, bwrap_argv.GO: go_read}
    session = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become_sandbox(
            argv, how, staged, session=session, keep=inherited, placed=placed, failure=failure_write
        )
    for descriptor in (*inherited, failure_write, ready_write, go_read):
        os.close(descriptor)
    with open(failure_read, "rb") as report:
        failure = report.read()
    if failure:
        os.waitpid(pid, 0)
        for descriptor in (status_read, ready_read, go_write):
            os.close(descriptor)
        raise _host_error(json.loads(failure))
    return Running(pid=pid, status=status_read, ready=ready_read, go=go_write)


def _become_sandbox(
    argv: list[str],
    how: Launch,
    staged: Staging | None,
    *,
    session: int,
    keep: set[int],
    placed: dict[int, int],
    failure: int,
) -> None:
    """The plumber: never returns."""
    step = "start"
    try:
        _die_with(session)
        if how.group is not None:
            cgroup.enter(how.group)
        uid, gid = os.geteuid(), os.getegid()
        if staged is not None:
            step = "stage"
            from cloister.runtimes import staging

            staging.enter(staged)
            uid, gid = staged.uid, staged.gid
            _die_with(session)  # changing uid cleared it (prctl(2))
        step = "namespaces"
        plumb.enter_fresh_namespaces(uid, gid)
        step = "network"
        plumb.plumb(how.bound, how.gateway)
        plumb.prove()
        if how.observer is not None:
            step = "observer"
            from cloister.runtimes import exec_watch  # only where somebody watches

            exec_watch.install(how.observer)
        step = "bubblewrap"
        for number, source in placed.items():
            os.dup2(source, number)
            keep.add(number)
        _close_all_but(keep | {failure})
        for number in (
            signal.SIGINT,
            signal.SIGTERM,
            signal.SIGHUP,
            signal.SIGQUIT,
            signal.SIGTSTP,
        ):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup(1) and `trap ''` stay in force
                signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python itself ignores
            signal.signal(number, signal.SIG_DFL)
        for descriptor in keep:
            os.set_inheritable(descriptor, True)
        os.chdir("/")
        os.execve(argv[0], argv, {})
    except BaseException as error:
        os.write(failure, json.dumps(_failure(step, error)).encode())
    os._exit(CloisterError.exit_code)


def _die_with(session: int) -> None:
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != session:  # it died before the call
        os._exit(CloisterError.exit_code)


def _close_all_but(keep: set[int]) -> None:
    """Close what the user's shell or this program left open: nothing is inherited by mistake (ATTACKS K-5)."""
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor in _STANDARD or descriptor in keep:
            continue
        try:
            os.close(descriptor)
        except OSError as error:
            if error.errno != errno.EBADF:  # the listing's own descriptor
                raise


def _memfd(content: bytes) -> int:
    descriptor = _high(os.memfd_create("cloister", os.MFD_CLOEXEC))
    _fill(descriptor, content)
    return descriptor


def _pipe() -> tuple[int, int]:
    reading, writing = os.pipe()
    return _high(reading), _high(writing)


def _high(descriptor: int) -> int:
    """Move a descriptor out of the way of the numbers that the sandbox's first program knows."""
    if descriptor > _LAST_PLACED:
        return descriptor
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _LAST_PLACED + 1)
    os.close(descriptor)
    return moved


def _fill(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)


def _failure(step: str, error: BaseException) -> dict[str, object]:
    if isinstance(error, CloisterError):
        return {"brief": error.brief, "details": error.details, "resolution": error.resolution}
    number = error.errno if isinstance(error, OSError) else None
    return {"step": step, "errno": number, "text": f"{type(error).__name__}: {error}"}


def _host_error(failure: dict[str, object]) -> HostError:
    if "brief" in failure:
        brief, details, resolution = (str(failure[key]) for key in ("brief", "details", "resolution"))
        return HostError(brief, details=details, resolution=resolution)
    step, number, text = failure["step"], failure["errno"], str(failure["text"])
    refused = step == "namespaces" and number in (errno.EPERM, errno.EACCES, errno.ENOSPC)
    if refused or number == errno.EUSERS:
        return HostError(
            "this host does not let an ordinary user create user namespaces, which the sandbox is made of",
            details=text,
            resolution="run: cloister doctor   (it says what to change here)",
        )
    briefs = {
        "start": "the sandbox's process could not be started",
        "stage": "the files that the sandbox shares could not be prepared",
        "namespaces": "the sandbox's namespaces could not be made",
        "network": "the sandbox's network could not be set up",
        "observer": "the sandbox's processes cannot be watched, which needs Linux 5.5 or later",
        "bubblewrap": "bubblewrap could not be started",
    }
    return HostError(briefs[str(step)], details=text, resolution="run: cloister doctor")
