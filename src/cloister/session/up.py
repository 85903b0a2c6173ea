"""`cloister up`: a sandbox that stays, with its supervisor detached from the terminal.

    up ── fork ──▶ supervisor = session.run, with `sleep` as the sandbox's first process ── fork ──▶ gateway
     ◀── pipe ── {"tell": …} … {"started": id} or {"error": …}

Rule 1: `up` returns when the sandbox can be entered: everything is mounted and its first process runs.
Rule 2: one supervisor for a name: a lock is held while one starts. It is not inherited by what stays.
Rule 3: a sandbox whose configuration has changed is made anew; its home and its workspace stay.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from cloister import errors
from cloister.errors import CloisterError, HostError
from cloister.sandbox import catalogue, plan, registry
from cloister.sandbox import facts as host_facts
from cloister.session import prepare, said, stop
from cloister.session.run import RunOptions, run
from cloister.system import files
from cloister.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloister.config.compile import Overrides
    from cloister.config.directories import Project

IDLE = ("sleep", "infinity")
START_TIMEOUT_S = 120.0
_DESCRIPTORS = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """What the command line says. `overrides` None: those of the last `up` of that name."""

    name: str = catalogue.DEFAULT_NAME
    directory: str | None = None
    overrides: Overrides | None = None
    anew: bool = False  # stop one that runs, and start it again


@dataclass(frozen=True, slots=True, kw_only=True)
class Up:
    """A kept sandbox that runs, and what it took: "started", "running" (already) or "recreated"."""

    project: Project
    record: registry.Record
    how: str


def up(options: UpOptions, environ: Mapping[str, str], tell: Callable[[str], None]) -> Up:
    """Make sure that the sandbox runs, with the configuration as it is now. CloisterError if it cannot."""
    name = catalogue.check_name(options.name)
    home = host_facts.look(environ).home
    start = prepare.start_directory(options.directory)
    project = prepare.find_project(start, home, environ)
    if options.directory is None:
        project = catalogue.around(project.workspace, name, environ) or project
    files.make_private_directory(project.sandboxes)
    with files.locked(catalogue.lock_of(project, name)):
        kept = catalogue.load(project, name)
        overrides = options.overrides or stored_overrides(kept)
        wanted = prepare.current_plan(project, environ, overrides)
        how = "started"
        running = catalogue.live(project, name)
        if running is not None:
            if not options.anew and _is_current(running, wanted, environ):
                return Up(project=project, record=running, how="running")
            stop.end(project, running, tell)
            how = "recreated"
        catalogue.store(
            project,
            catalogue.Kept(
                name=name,
                workspace=project.workspace,
                created=kept.created if kept is not None else time.time(),
                runtime=prepare.runtime(wanted),
                profile=str(wanted["profile"]),
                overrides=None if overrides is None else _document(overrides),
            ),
        )
        try:
            _start(
                RunOptions(command=IDLE, directory=start, overrides=overrides, name=name),
                project,
                environ,
                tell,
            )
        except BaseException:  # what was asked for in vain is not what the next `up` asks for
            if kept is None:
                files.remove(catalogue.path_of(project, name))
            else:
                catalogue.store(project, kept)
            raise
        record = catalogue.live(project, name)
    if record is None:
        raise CloisterError(
            "the sandbox ended as soon as it had started", resolution=f"see {catalogue.log_of(project, name)}"
        )
    return Up(project=project, record=record, how=how)


def _is_current(running: registry.Record, wanted: plan.Plan, environ: Mapping[str, str]) -> bool:
    """Whether it runs with this configuration, and of the image as it is now."""
    if running.plan != plan.fingerprint(wanted):
        return False
    if running.container is None:
        return True
    from cloister.config import directories
    from cloister.session import container_place  # off the path of the embedded runtime

    return container_place.is_current(
        running.container,
        wanted,
        host_facts.look(environ),
        state_directory=directories.state_directory(environ),
        workspace=running.workspace,
    )


def _start(
    options: RunOptions, project: Project, environ: Mapping[str, str], tell: Callable[[str], None]
) -> None:
    """Fork the supervisor, and wait until it says how its start has ended."""
    log = catalogue.log_of(project, options.name)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _supervise(options, environ, writing, log=log)
    os.close(writing)
    with open(reading, "rb", buffering=0) as pipe:
        try:
            _await_start(pipe.fileno(), tell)
        except BaseException:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            for line in said.of_others(log):  # bubblewrap's, to which the error points
                tell(line)
            raise


def _await_start(pipe: int, tell: Callable[[str], None]) -> None:
    data = b""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        if not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise HostError(
                f"the sandbox did not start, and said nothing for {START_TIMEOUT_S:g} s",
                resolution="run: cloister doctor",
            )
        part = os.read(pipe, 1 << 16)
        if not part:
            raise CloisterError(
                "the sandbox's supervisor died while it started", resolution="run: cloister doctor"
            )
        data += part
        *lines, data = data.split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "tell" in message:  # it may take long, as long as it says something (session/away.py)
                tell(message["tell"])
                deadline = time.monotonic() + START_TIMEOUT_S
            elif "error" in message:
                kind = message["error"].pop("kind")
                raise getattr(errors, kind)(message["error"].pop("brief"), **message["error"])
            else:
                return


def _supervise(options: RunOptions, environ: Mapping[str, str], report: int, *, log: str) -> None:
    """The supervisor: never returns."""
    code = CloisterError.exit_code
    try:
        os.setsid()
        _detach(log, keep=report)
        reporter = _Reporter(report)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        try:
            code = run(
                RunOptions(
                    command=options.command,
                    directory=options.directory,
                    overrides=options.overrides,
                    name=options.name,
                    on_started=reporter.started,
                ),
                environ,
                reporter.tell,
            )
        except CloisterError as error:
            reporter.failed(error)
        except Exception as error:
            reporter.failed(
                CloisterError(
                    f"this is a bug in cloister: {type(error).__name__}: {error}",
                    resolution="please report it",
                )
            )
    finally:
        os._exit(code)


class _Reporter:
    """Tells `up` what happens until the sandbox has started; the log hears all of it."""

    def __init__(self, pipe: int) -> None:
        self._pipe: int | None = pipe

    def tell(self, notice: str) -> None:
        with suppress(OSError):  # the disk may be full: the sandbox goes on
            os.write(2, said.stamped(notice).encode(errors="backslashreplace"))
        self._send({"tell": notice})

    def started(self) -> None:
        self._send({"started": True})
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None

    def failed(self, error: CloisterError) -> None:
        words = {"brief": error.brief, "details": error.details, "resolution": error.resolution}
        self.tell(str(error)) if self._pipe is None else self._send(
            {"error": {"kind": type(error).__name__, **words}}
        )

    def _send(self, message: dict[str, object]) -> None:
        if self._pipe is not None:
            with suppress(OSError):
                os.write(self._pipe, json.dumps(message).encode() + b"\n")


def _detach(log: str, *, keep: int) -> None:
    """No terminal, no lock of `up`'s, and nothing that the user's shell left open."""
    os.closerange(3, keep)
    os.closerange(keep + 1, _DESCRIPTORS)
    null = os.open("/dev/null", os.O_RDWR)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(null)
    os.close(output)


def stored_overrides(kept: catalogue.Kept | None) -> Overrides | None:
    """What the last `up` of this sandbox changed of the configuration."""
    if kept is None or kept.overrides is None:
        return None
    from cloister.config.settings import Overrides  # the validator's module: off the path of plain starts

    words = dict(kept.overrides)
    names = ("allow", "unmask", "ports")
    return Overrides(
        **{  # type: ignore[arg-type]  # as _document wrote them
            **words,
            **{name: tuple(words[name]) for name in names if name in words},  # type: ignore[arg-type]  # lists
            "environment": tuple((name, value) for name, value in words["environment"]),  # type: ignore[attr-defined]  # pairs
        }
    )


def _document(overrides: Overrides) -> dict[str, object]:
    return {name: getattr(overrides, name) for name in type(overrides).__slots__}
