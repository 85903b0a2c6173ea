"""The second half of a start, and the wait: what runs while the gateway is already loading."""

from __future__ import annotations

import os
import select

from cloister.audit.log import AuditLog, Event
from cloister.config import directories
from cloister.config.directories import Project
from cloister.errors import CloisterError, HostError
from cloister.network import standin
from cloister.runtimes import embedded, invariants, mount_check, orphans, seccomp
from cloister.runtimes.bwrap_argv import BwrapFeatures
from cloister.sandbox import entry, placeholders, registry, scan, view, workspace
from cloister.sandbox.facts import Bubblewrap, Facts
from cloister.sandbox.plan import Plan
from cloister.sandbox.protect import Protection
from cloister.sandbox.spec import SandboxSpec
from cloister.session.gateway_process import Gateway
from cloister.session.terminal import Terminal
from cloister.session.wait import Waiter
from cloister.system import cgroup, files
from cloister.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.runtimes.mount_guard import Guard

AGENT_SOCKET = "ssh-agent.sock"  # sandbox/environment.py names it
_END_S = 2.0  # in which pid 1 notices that its child has ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What the first half has found out and made."""

    project: Project
    workspace: str  # its path in the sandbox
    plan: Plan
    facts: Facts
    bubblewrap: Bubblewrap | None  # None: a container's
    state_directory: str
    public_directory: str
    command: tuple[str, ...]
    cwd: str
    gateway: Gateway
    kept: registry.Kept
    tell: Callable[[str], None]
    on_started: Callable[[], None] | None = None
    source: str = ""  # the directory that is shown at the workspace's path
    observer: int | None = None


def run(start: Start) -> int:
    """Start the sandbox and wait for its end; returns the command's exit code."""
    if start.bubblewrap is None:
        raise TypeError("the embedded runtime needs bubblewrap")
    project, kept, gateway = start.project, start.kept, start.gateway
    sandbox_id = kept.record.sandbox_id
    waiter = Waiter(start.tell, lambda init: note_init(kept, init))
    sibling = has_sibling(start)
    group = _limit(start, sandbox_id)
    found_workspace = os.stat(start.source)
    found = scan_workspace(start)
    kept.update(
        others=processes(gateway.pid),
        cgroup=group.directory if group is not None else "",
        nested=tuple(sorted(found.nested)),
        launched=not is_private(start),
    )
    spec = view.build(
        plan=start.plan,
        facts=start.facts,
        scan=found,
        sandbox_id=sandbox_id,
        command=start.command,
        cwd=start.cwd,
        public_directory=start.public_directory,
        home_directory=project.home,
        workspace_source=start.source,
        trust_store=start.facts.has_java,
    )
    seccomp_file = seccomp.filter_file(start.state_directory)
    entry.store(
        f"{start.public_directory}{entry.SUFFIX}",
        entry.of(spec, seccomp_file=seccomp_file, cgroup=group.directory if group is not None else ""),
    )
    placeholders.acquire(project.shared, sandbox_id, found.placeholders)
    with Audited(project, sandbox_id) as audited, Terminal(), orphans.Adopted() as adopted:
        pass_agent(start)
        try:
            running = embedded.launch(
                spec,
                embedded.Launch(
                    bwrap=start.bubblewrap.path,
                    features=BwrapFeatures.of_version(start.bubblewrap.version),
                    seccomp_file=seccomp_file,
                    ca_bundle=gateway.ca_bundle,
                    empty_file=os.path.join(start.public_directory, "empty"),
                    rlimits=group is None,
                    group=group,
                    gateway=gateway.control,
                    bound=bound(start.plan),
                    observer=start.observer,
                ),
            )
        except HostError as error:
            if gateway.has_ended():  # the plumber could not pass the sockets on
                raise gateway.died(error.details) from error
            raise
        try:
            os.close(gateway.ca_bundle)
            kept.update(others=processes(gateway.pid, running.pid))
            from cloister.session import cleanup  # noqa: F401 - for the end: here bubblewrap is waited for anyway

            if _release(spec, running, waiter, found_workspace if sibling else None):
                adopted.made()
                if start.on_started:
                    start.on_started()
            audited.code = waiter.wait(running, gateway, lambda init: guard(start, found, init))
        except BaseException:
            # Cleaning up removes the mount points that protect the workspace: never while the agent lives.
            waiter.kill(running)
            raise
    return audited.code


def guard(start: Start, found: Protection, init: int) -> Guard:
    """Who puts back what the host takes away, of a sandbox that is made."""
    from cloister.runtimes import mount_guard  # not for a command that ends at once

    place = mount_guard.Place(
        init=init,
        sandbox_id=start.kept.record.sandbox_id,
        public_directory=start.public_directory,
        shared=start.project.shared,
    )
    return mount_guard.Guard(place, found, start.tell)


class Audited:
    """Writes a sandbox's start down, and its end however it comes: with its `code`, or why it had none.

    HostError if the start cannot be written: what is not written down does not happen (docs/adr/0040).
    """

    def __init__(self, project: Project, sandbox_id: str) -> None:
        self.code = CloisterError.exit_code
        self._log = AuditLog(project.audit, sandbox_id)

    def __enter__(self) -> Audited:
        self._log.write(Event(kind="start"))
        if self._log.failure is not None:
            raise HostError(
                f"the audit log {self._log.path!r} cannot be written: {self._log.failure.strerror}",
                resolution="make room, or see who owns that directory",
            )
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        match error:
            case None:
                self._log.write(Event(kind="end", status=self.code))
            case CloisterError():
                self._log.write(Event(kind="end", status=error.exit_code, reason=error.brief))
            case _:
                self._log.write(Event(kind="end", reason=type(error).__name__))


def pass_agent(start: Start) -> None:
    """Make the socket of the filtered SSH agent: it listens before the command starts, and the gateway serves it."""
    signing = start.plan.get("ssh")
    if not isinstance(signing, dict) or signing.get("agent") is not True:
        return
    if not start.facts.environ.get("SSH_AUTH_SOCK"):
        start.tell("there is no SSH agent to forward: SSH_AUTH_SOCK is not set here")
        return
    import socket

    from cloister.system import unix

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        # As root the agent is another uid; only the sandbox sees the directory.
        unix.bind(listener, os.path.join(start.public_directory, AGENT_SOCKET), mode=0o666)
        listener.listen(8)
        entry = {"kind": "ssh-agent", "family": 1, "address": "", "port": 0}
        start.gateway.listen(entry, listener)


def has_sibling(start: Start) -> bool:
    """Whether a live sandbox writes in this workspace, or around it: it could exchange directories while we mount."""
    mine = start.project.workspace
    return any(
        record.sandbox_id != start.kept.record.sandbox_id
        and (workspace.contains(record.workspace, mine) or workspace.contains(mine, record.workspace))
        and registry.alive(record.session)
        for runs in directories.all_runs(start.state_directory)
        for record in registry.records(runs)
    )


def _release(
    spec: SandboxSpec, running: embedded.Running, waiter: Waiter, found_workspace: os.stat_result | None
) -> bool:
    """Let the command start if the sandbox is what it must be; False if it has ended, and the wait tells why.

    `found_workspace`: a sibling could have exchanged directories, so every mount must lie where it should, in the
    workspace that was looked at.
    """
    init = waiter.init(running)
    if init is None or not _is_made(running):
        return False
    if not is_confined(_first(init), init):
        return False
    if found_workspace is not None:
        check_mounts(spec, init, found_workspace)
    os.write(running.go, b"go\n")
    os.close(running.ready)
    os.close(running.go)
    return True


def _is_made(running: embedded.Running) -> bool:
    """Wait until all is mounted; False if bubblewrap has ended: a child that it left could hold the pipe open."""
    process = os.pidfd_open(running.pid)
    try:
        poll = select.poll()
        for descriptor in (running.ready, process):
            poll.register(descriptor, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll()}
        return running.ready in ready and bool(os.read(running.ready, 1))
    finally:
        os.close(process)


def is_confined(first: int | None, init: int) -> bool:
    """Whether the process that becomes the command, by its pid on the host, is confined as it must be.

    False if the sandbox, whose pid 1 is `init`, has ended: a signal may come before the command. The wait tells how.
    CloisterError for one that lives.
    """
    wrong = invariants.breaches(*_seen_of(first))
    if not wrong:
        return True
    if _ends(init):
        return False
    raise CloisterError(
        "the sandbox is not what it must be, so its command was not run",
        details="\n".join(wrong),
        resolution="run: cloister doctor   (and please report it)",
    )


def _ends(pid: int) -> bool:
    """Whether a process has ended, or is about to: its child has."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], _END_S)[0])
    finally:
        os.close(process)


def _first(init: int) -> int | None:
    try:
        return registry.children(init)[0]
    except (OSError, IndexError):
        return None


def _seen_of(pid: int | None) -> tuple[str, str]:
    """What the kernel says of a process. Empty texts if it has gone."""
    try:
        with (
            open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as status,
            open(f"/proc/{pid}/net/dev", encoding="utf-8", errors="replace") as interfaces,
        ):
            return status.read(), interfaces.read()
    except OSError:
        return "", ""


def check_mounts(spec: SandboxSpec, init: int, found_workspace: os.stat_result) -> None:
    """CloisterError unless every mount of the sandbox lies where it should, in the workspace that was looked at."""
    wrong = mount_check.misplaced(spec, files.read_text(f"/proc/{init}/mountinfo") or "")
    inside, outside = os.stat(f"/proc/{init}/root{spec.workspace}"), found_workspace
    if (inside.st_dev, inside.st_ino) != (outside.st_dev, outside.st_ino):
        wrong = (spec.workspace,)
    if wrong:
        raise CloisterError(
            f"{wrong[0]!r} changed while the sandbox was being made",
            details="another sandbox of this workspace is alive and exchanged a directory",
            resolution="stop the other sandbox, and start this one again",
        )


def scan_workspace(start: Start) -> Protection:
    """Look for what is protected; tells what is odd."""
    if is_private(start):  # nothing of it is executed on the host: what comes back is reviewed (workspaces/)
        return Protection(workspace=start.workspace)
    settings = view.Settings(start.plan)
    found = scan.scan(
        start.project.workspace,
        home=start.facts.home,
        protected=settings.texts("protect"),
        unmask=settings.texts("unmask"),
    )
    for note in found.notes:
        start.tell(note)
    return found


def is_private(start: Start) -> bool:
    """Whether the sandbox sees a copy at the workspace's path."""
    return start.source != start.workspace


def _limit(start: Start, sandbox_id: str) -> cgroup.Group | None:
    """A cgroup that holds all three limits, or None: then rlimits hold what they can."""
    where = cgroup.delegation(files.read_text("/proc/self/cgroup") or "")
    limits = view.Settings(start.plan).limits
    group = None
    if where.controllers.issuperset(cgroup.CONTROLLERS):
        group = cgroup.create(
            where, sandbox_id, memory_bytes=limits.memory_bytes, cpus=limits.cpus, pids=limits.pids
        )
    if group is None and limits.cpus not in (None, cgroup.DEFAULT_CPUS):
        start.tell(
            f"no cgroup is delegated here, so the limit of {limits.cpus:g} CPUs does not hold (cloister doctor)"
        )
    return group


def bound(plan: Plan) -> list[tuple[int, list[int]]]:
    """The stand-in indexes and ports that the plumber binds at start (docs/architecture.md)."""
    entries = plan["bound"]
    if not isinstance(entries, list):
        raise CloisterError("the stored plan is damaged", resolution="run: cloister policy show")
    return [(standin.FIRST_INDEX + index, list(entry["ports"])) for index, entry in enumerate(entries)]


def note_init(kept: registry.Kept, init: int) -> None:
    """Write down the sandbox's first process."""
    found = processes(init)
    kept.update(others=(*kept.record.others, *found), init=found[0] if found else None)


def processes(*pids: int) -> tuple[registry.Process, ...]:
    """Those that run, identified."""
    return tuple(process for pid in pids if (process := registry.identify(pid)) is not None)
