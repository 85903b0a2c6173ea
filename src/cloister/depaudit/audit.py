"""Audit one command: make the stage, run the sandbox in a child process, watch it, read what it left, judge.

Rule 1: the sandbox is an ordinary one, with the guarantees of `cloister run`; what is watched for the report
        keeps nothing out and lets nothing in.
Rule 2: the child that runs the sandbox dies with this process, and the sandbox with it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from cloister import errors
from cloister.audit.log import Event
from cloister.audit.read import Reader
from cloister.config.settings import Overrides
from cloister.depaudit import canaries, lockfiles, observer, places, stage, traffic, verdict
from cloister.depaudit.observation import Dependency, Observation
from cloister.depaudit.verdict import Verdict
from cloister.errors import CloisterError, HostError, UntrustedInputError, UsageError
from cloister.sandbox import workspace as workspaces
from cloister.session import cleanup
from cloister.session.run import RunOptions, Stage, run
from cloister.system import linux

PROFILE = "registries"
_LOCK_FILE_LIMIT_BYTES = 32 << 20
_LOCK_FILES_LIMIT = 200
_LOCK_FILE_DEPTH = 4
_DIRECTORIES_LIMIT = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to audit. `directory` is where the command runs; `environment` is set for it."""

    command: tuple[str, ...]
    directory: str
    timeout_s: float
    allow: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was seen, and what it means."""

    observation: Observation
    verdict: Verdict


def audit(options: Options, environ: Mapping[str, str], tell: Callable[[str], None]) -> Report:
    """Run the command and judge it. CloisterError if the sandbox cannot be made, or the command not started."""
    if not options.command:
        raise UsageError("a command is missing", resolution="for example: cloister audit -- npm ci")
    home = os.path.realpath(environ.get("HOME") or "/nonexistent")
    workspace = workspaces.find(options.directory, home)
    workspaces.check(workspace, home, environ)
    planted = canaries.make(lambda: os.urandom(32))
    with stage.made(workspace, options.directory, environ, planted) as made:
        _check_program(options, workspace, made)
        started_at = time.monotonic()
        seen, code = _watched(options, workspace, environ, made, tell)
        observation = _observation(options, made, seen, code, time.monotonic() - started_at)
    return Report(
        observation=observation, verdict=verdict.judge(observation, {one.name: one for one in planted})
    )


def _watched(
    options: Options,
    workspace: str,
    environ: Mapping[str, str],
    made: stage.Stage,
    tell: Callable[[str], None],
) -> tuple[observer.Seen, int]:
    """Run the sandbox to its end; what was seen meanwhile, and the command's exit code."""
    with ExitStack() as stack:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        watching = observer.Observer(made, workspace, ours)
        stack.callback(watching.close)
        child = _Child(options, environ, made, theirs, tell)
        stack.callback(child.end)
        theirs.close()
        _pass_signals(child.pid)
        watching.watch(child.pid, timeout_s=options.timeout_s)
        code = child.code()
        cleanup.sweep(made.project, lambda _: None)  # if it had to be killed
        if not watching.seen.begun:
            raise _not_started(options, code)
    return watching.seen, code


def _observation(
    options: Options, made: stage.Stage, seen: observer.Seen, code: int, duration_s: float
) -> Observation:
    """With what is left behind: the audit log, the files."""
    events = _events(made.project.audit)
    dependencies, notes = _dependencies(made.project.workspace)
    return Observation(
        command=options.command,
        code=code,
        timed_out=seen.timed_out,
        duration_s=round(duration_s, 1),
        scripts=tuple(seen.scripts),
        processes=tuple(seen.processes),
        processes_left_out=seen.left_out,
        opened=tuple(seen.opened),
        written=observer.written(seen, made),
        asked=traffic.asked(events),
        sent=traffic.sent(events, canaries.texts(made.canaries)),
        dependencies=dependencies,
        notes=(*made.notes, *notes),
    )


class _Child:
    """The process that runs the sandbox; its errors are told through a pipe."""

    def __init__(
        self,
        options: Options,
        environ: Mapping[str, str],
        made: stage.Stage,
        channel: socket.socket,
        tell: Callable[[str], None],
    ) -> None:
        self._errors, writing = os.pipe()
        ours = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            code = CloisterError.exit_code
            try:
                os.close(self._errors)
                linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() == ours:
                    os.dup2(2, 1)  # the report has standard output to itself
                    code = _run(options, environ, made, channel, tell)
            except BaseException as error:
                os.write(writing, json.dumps(_words(error)).encode())
            finally:
                os._exit(code)
        os.close(writing)
        self._status: int | None = None

    def code(self) -> int:
        """Its exit code, which is the command's. Raises what kept the sandbox from starting."""
        if self._status is None:
            _, status = os.waitpid(self.pid, 0)
            self._status = os.waitstatus_to_exitcode(status)
            with open(self._errors, "rb") as pipe:
                words = pipe.read()
            if words:
                raise _error(json.loads(words))
        return self._status if self._status >= 0 else 128 - self._status

    def end(self) -> None:
        """Make sure that it is gone. Idempotent."""
        if self._status is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            with suppress(CloisterError):
                self.code()


def _run(
    options: Options,
    environ: Mapping[str, str],
    made: stage.Stage,
    channel: socket.socket,
    tell: Callable[[str], None],
) -> int:
    variables = dict(options.environment)
    return run(
        RunOptions(
            command=options.command,
            directory=options.directory,
            # Its configuration is not asked for: what is audited may not have been trusted yet.
            overrides=Overrides(profile=PROFILE, allow=options.allow, no_project_file=True),
            stage=Stage(
                project=made.project,
                adapt=lambda plan: stage.adapted(plan, made.canaries, variables),
                observer=channel.fileno(),
            ),
        ),
        environ,
        tell,
    )


def _words(error: BaseException) -> dict[str, str]:
    if isinstance(error, CloisterError):
        return {
            "kind": type(error).__name__,
            "brief": error.brief,
            "details": error.details,
            "resolution": error.resolution,
        }
    if isinstance(error, OSError):
        about = f"{error.filename!r}: " if error.filename is not None else ""
        return {
            "kind": "HostError",
            "brief": f"{about}{error.strerror or error}",
            "resolution": "run: cloister doctor",
        }
    return {
        "kind": "CloisterError",
        "brief": f"this is a bug in cloister: {type(error).__name__}: {error}",
        "resolution": "please report it",
    }


def _error(words: dict[str, str]) -> CloisterError:
    cls: type[CloisterError] = getattr(errors, words.pop("kind"))
    return cls(words.pop("brief"), **words)


def _pass_signals(session: int) -> None:
    """What the terminal sends reaches the command anyway; what is sent to us alone is passed on."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)

    def pass_on(number: int, _frame: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(session, number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)


def _check_program(options: Options, workspace: str, made: stage.Stage) -> None:
    """A program of the project that git ignores (`.venv/bin/pip`) is not in the copy."""
    name = options.command[0]
    path = os.path.normpath(os.path.join(options.directory, name))
    if "/" not in name or not path.startswith(f"{workspace}/") or not os.path.lexists(path):
        return
    if not os.path.lexists(made.project.workspace + path[len(workspace) :]):
        raise UsageError(
            f"{name!r} is not part of the copy that an audit works on",
            details="git ignores it, or it lies in a directory of packages",
            resolution=f"name the program on PATH instead: cloister audit -- {os.path.basename(name)} …",
        )


def _not_started(options: Options, code: int) -> CloisterError:
    if code in (126, 127):
        return UsageError(
            f"the command {options.command[0]!r} could not be started, so there is nothing to report",
            resolution="its message stands above; is it installed, and on PATH?",
        )
    return HostError(
        f"the sandbox ended with code {code} before the command was started",
        resolution="run: cloister doctor",
    )


def _events(path: str) -> list[Event]:
    reader = Reader(path)
    try:
        return [entry.event for entry in reader.poll()]
    finally:
        reader.close()


def _dependencies(root: str) -> tuple[tuple[Dependency, ...], tuple[str, ...]]:
    """What the lock files say, those that the command has written included."""
    found: list[Dependency] = []
    notes: list[str] = []
    for path in _lock_files(root):
        shown = f"./{os.path.relpath(path, root)}"
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with open(os.open(path, flags), "rb") as file:
                text = file.read(_LOCK_FILE_LIMIT_BYTES).decode()
            found += lockfiles.dependencies(os.path.basename(path), text, file=shown)
        except (OSError, UnicodeDecodeError, UntrustedInputError) as error:
            notes.append(f"{shown} could not be read: {error}")
    return tuple(found), tuple(notes)


def _lock_files(root: str) -> list[str]:
    found: list[str] = []
    for looked_at, (directory, names, files) in enumerate(os.walk(root)):
        depth = os.path.relpath(directory, root).count("/")
        names[:] = sorted(
            name
            for name in names
            if depth < _LOCK_FILE_DEPTH and name != ".git" and not places.is_package_directory(name)
        )
        found += [f"{directory}/{name}" for name in sorted(files) if lockfiles.is_lock_file(name)]
        if len(found) >= _LOCK_FILES_LIMIT or looked_at >= _DIRECTORIES_LIMIT:
            break
    return found[:_LOCK_FILES_LIMIT]
