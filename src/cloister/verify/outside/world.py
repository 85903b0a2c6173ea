"""Where the host's probes work: projects in a directory of the home, and cloister's own command on them."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from cloister.config import directories
from cloister.config.directories import Project
from cloister.sandbox import registry
from cloister.sandbox.plan import Plan
from cloister.session import cleanup
from cloister.system import files, linux
from cloister.values import dataclass

PREFIX = "cloister-verify-"
COMMAND_S = 60.0
_OUTPUT_LIMIT_BYTES = 1 << 20
_MADE_ANEW = "placeholders"  # of cloister's state: who holds what, which is not to be copied
_PASSED_ON = ("runtime", "image", "gateway")

Command = Callable[[Sequence[str]], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A command of ours that has ended. `code` is -n if a signal ended it."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """For evidence: its code, and the end of what it said."""
        lines = (self.err.strip() or self.out.strip() or "nothing").splitlines()
        return f"code {self.code}: {' '.join(lines)[-160:]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """`command` is cloister's own: it takes arguments, prints, and returns an exit code."""

    base: str
    environ: Mapping[str, str]
    command: Command
    runtime: str
    image: str = ""  # of a container, as the configuration names it

    @property
    def state(self) -> str:
        return directories.state_directory(self.environ)

    def project(self, name: str, contents: Mapping[str, str] | None = None) -> Project:
        """A new project of that name."""
        workspace = f"{self.base}/projects/{name}"
        os.makedirs(workspace)
        for path, text in (contents or {}).items():
            os.makedirs(os.path.dirname(f"{workspace}/{path}"), exist_ok=True)
            with open(f"{workspace}/{path}", "w", encoding="utf-8") as file:
                file.write(text)
        return directories.project(workspace, self.environ)

    def records(self) -> list[registry.Record]:
        """Of every sandbox that is, or was, alive here."""
        return [record for runs in directories.all_runs(self.state) for record in registry.records(runs)]

    def cloister(
        self, *arguments: str, directory: str | None = None, stdin: bytes = b"", timeout_s: float = COMMAND_S
    ) -> Done:
        """Run a command of ours to its end, or kill it after `timeout_s` (code -9)."""
        where = directory or self.base
        given = os.memfd_create("cloister-verify", os.MFD_CLOEXEC)
        os.write(given, stdin)
        os.lseek(given, 0, os.SEEK_SET)
        reading, writing = zip(os.pipe(), os.pipe(), strict=True)
        ours = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become(ours, (given, *writing), where, arguments)
        for descriptor in (given, *writing):
            os.close(descriptor)
        out, err = _read(reading, pid, time.monotonic() + timeout_s)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return Done(code=code, out=out.decode(errors="replace"), err=err.decode(errors="replace"))

    def _become(
        self, parent: int, streams: tuple[int, int, int], where: str, arguments: tuple[str, ...]
    ) -> None:
        """In a child: cloister's command, as its console script would run it. Never returns."""
        code = 70
        try:
            linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(code)
            for number, descriptor in enumerate(streams):
                os.dup2(descriptor, number)
            os.closerange(3, 1 << 20)
            sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process
            sys.stdout = open(1, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
            sys.stderr = open(2, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
            os.environ.clear()
            os.environ.update(self.environ)
            os.chdir(where)
            code = self.command(list(arguments))
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode(errors="replace"))
        finally:
            os._exit(code)


@contextmanager
def made(
    names: Iterable[str], environ: Mapping[str, str], home: str, plan: Plan, command: Command
) -> Iterator[dict[str, World]]:
    """Make one for each name, so that nothing that happens in one is cleaned up by another; remove them at the end."""
    base = f"{home}/{PREFIX}{os.getpid()}-host"
    sandbox = plan["sandbox"]
    settings = sandbox if isinstance(sandbox, dict) else {}
    found = {}
    try:
        for name in names:
            place = f"{base}/{name}"
            changed = {"XDG_STATE_HOME": f"{place}/state", "XDG_CONFIG_HOME": f"{place}/config"}
            runtime = str(settings.get("runtime") or "embedded")
            found[name] = World(
                base=place,
                environ={**environ, **changed},
                command=command,
                runtime=runtime,
                image=str(settings.get("image") or ""),
            )
            os.makedirs(place, 0o755)
            _configure(found[name], environ, settings)
            _seed(directories.state_directory(environ), found[name].state)
        yield found
    finally:
        remove(base)


def remove(base: str) -> None:
    """Remove what `made` makes, and first the sandboxes that a killed verification has left there. Idempotent."""
    for name in os.listdir(base) if os.path.isdir(base) else ():
        state = f"{base}/{name}/state/cloister"
        for runs in directories.all_runs(state):
            for record in registry.records(runs):
                _end(record.session)
        cleanup.sweep_all(state, lambda _: None)
    files.remove_tree(base)


def _end(session: registry.Process) -> None:
    """SIGKILL a session, and wait until it is gone."""
    with suppress(OSError):
        pidfd = os.pidfd_open(session.pid)
        registry.kill(session)
        select.select([pidfd], [], [], COMMAND_S)
        os.close(pidfd)


def _configure(world: World, environ: Mapping[str, str], settings: Mapping[str, object]) -> None:
    """A configuration that reaches nothing, of the user's runtime; beside it what other programs find there."""
    theirs = os.path.dirname(os.path.dirname(directories.user_file(environ)))
    ours = directories.user_file(world.environ)
    os.makedirs(os.path.dirname(ours), mode=0o700)
    with suppress(OSError):
        for name in os.listdir(theirs):
            if name != "cloister":  # an engine's client looks for its settings there
                os.symlink(f"{theirs}/{name}", f"{os.path.dirname(os.path.dirname(ours))}/{name}")
    chosen = {name: settings[name] for name in _PASSED_ON if settings.get(name)}
    lines = [f"{name} = {json.dumps(value)}" for name, value in chosen.items()]
    text = "\n".join(["[sandbox]", 'profile = "offline"', *lines, ""])
    files.write_atomic(ours, text.encode())


def _seed(theirs: str, ours: str) -> None:
    """What cloister has found out about this host, so that it need not be asked again."""
    files.make_private_directory(ours)
    with suppress(OSError):
        for name in os.listdir(theirs):
            if os.path.isfile(f"{theirs}/{name}") and not name.startswith(_MADE_ANEW):
                shutil.copy2(f"{theirs}/{name}", f"{ours}/{name}")
        shutil.copytree(f"{theirs}/images", f"{ours}/images")


def _read(reading: tuple[int, int], pid: int, deadline: float) -> tuple[bytes, bytes]:
    """What a child prints, until it has closed both streams or its time is over."""
    found: dict[int, bytes] = dict.fromkeys(reading, b"")
    still = set(reading)
    while still:
        ready = select.select(list(still), [], [], max(0.0, deadline - time.monotonic()))[0]
        if not ready:
            os.kill(pid, signal.SIGKILL)
            break
        for descriptor in ready:
            part = os.read(descriptor, 1 << 16)
            if not part:
                still.discard(descriptor)
            elif len(found[descriptor]) < _OUTPUT_LIMIT_BYTES:
                found[descriptor] += part
    for descriptor in reading:
        os.close(descriptor)
    return found[reading[0]], found[reading[1]]
