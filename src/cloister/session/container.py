"""The second half of a start, and the wait, in a container engine (live.py is that of the embedded runtime).

Rule 1: the order is that of live.py: record, scan, audit, sandbox, look at the mounts, let the command run.
Rule 2: no gateway, no sandbox; no holder, no sandbox: whichever ends first, the agent's container is removed.
Rule 3: what is removed is removed before the workspace's protection is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from cloister.errors import CloisterError, HostError
from cloister.runtimes import engine as engines
from cloister.runtimes import (
    oci,
    oci_argv,
    oci_exec_argv,
    oci_start,
    seccomp_profile,
    staging,
)
from cloister.sandbox import catalogue, container_view, entry, placeholders, registry, view
from cloister.sandbox.facts import Facts
from cloister.sandbox.plan import Plan
from cloister.sandbox.protect import Protection
from cloister.sandbox.spec import SandboxSpec
from cloister.session import live
from cloister.session.container_place import Place
from cloister.session.terminal import Terminal
from cloister.session.wait import Waiter
from cloister.system import cgroup, files, proc
from cloister.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloister.runtimes.oci_remote import Put
    from cloister.session.host_watch import HostWatch

_END_S = 20.0


def run(start: live.Start, place: Place) -> int:
    """Start the sandbox and wait for its end; returns the command's exit code."""
    if start.on_started is not None and not place.image.has_sleep:
        raise HostError(
            f"the image {place.image.reference!r} has no `sleep`, by which a sandbox stays",
            resolution="run its program in a sandbox of its own: cloister run -- PROGRAM",
        )
    _tell_of_limits(start, place)
    with live.Audited(start.project, start.kept.record.sandbox_id) as audited:
        audited.code = _run(start, place)
    return audited.code


def _run(start: live.Start, place: Place) -> int:
    kept, gateway = start.kept, start.gateway
    waiter = Waiter(start.tell, lambda init: live.note_init(kept, init))
    found_workspace = os.stat(start.source)
    kept.update(others=live.processes(gateway.pid))
    put = _put(start, place) if place.engine.remote else None
    # Its network takes as long as all that follows here.
    starting = oci_start.Starting(_launch(start, place, put))
    try:
        found = live.scan_workspace(start)
        spec = _spec(start, place, found)
        live.pass_agent(start)
        watch = _watch(start, place, spec)
    except BaseException:
        starting.abandon()
        raise
    with Terminal():
        try:
            running = starting.start(spec)
        except HostError as error:
            if gateway.has_ended():
                raise gateway.died(error.details) from error
            raise
        try:
            os.close(gateway.ca_bundle)
            if (init := running.init()) is not None:  # None: the engine's processes are not seen here
                waiter.is_started(init, made=True)
                live.is_confined(init, init)
            else:
                waiter.deliver = running.signal
            if watch is not None:
                watch.settle()
            if not place.engine.remote and live.has_sibling(start):  # there none has a directory of this host
                _check_mounts(init, running, spec, found_workspace)
            running.release()
            if start.on_started is not None:
                start.on_started()
            return _wait(waiter, running, start, found, watch)
        except BaseException:
            running.kill()
            raise


def _tell_of_limits(start: live.Start, place: Place) -> None:
    cpus = view.Settings(start.plan).limits.cpus
    if not place.engine.limits and cpus not in (None, cgroup.DEFAULT_CPUS):
        start.tell(
            f"{place.engine.name} has no control groups here, so the limit of {cpus:g} CPUs does not hold"
        )


def _watch(start: live.Start, place: Place, spec: SandboxSpec) -> HostWatch | None:
    if place.engine.local or live.is_private(start):
        return None
    from cloister.session import host_watch  # only where no mount of the sandbox's can be seen

    return host_watch.HostWatch(spec, start.source)


def _spec(start: live.Start, place: Place, found: Protection) -> SandboxSpec:
    """Put together what the sandbox sees; the workspace's protection is made."""
    kept = start.kept
    kept.update(nested=tuple(sorted(found.nested)), launched=not live.is_private(start))
    spec = container_view.build(
        plan=start.plan,
        facts=_agent(start.facts, start.source),
        found=place.image,
        scan=found,
        sandbox_id=kept.record.sandbox_id,
        command=start.command,
        cwd=start.cwd,
        public_directory=start.public_directory,
        home_directory=_home(start, place),
        workspace_source=start.source,
    )
    entry.store(f"{start.public_directory}{entry.SUFFIX}", entry.of(spec, seccomp_file="", cgroup=""))
    placeholders.acquire(start.project.shared, kept.record.sandbox_id, found.placeholders)
    return spec


def _home(start: live.Start, place: Place) -> str:
    """The directory that is the home, or, for an engine on another machine, that gets its mount points."""
    return f"{start.public_directory}.home" if place.engine.remote else start.project.home


def _put(start: live.Start, place: Place) -> Put:
    """Bring home and workspace to an engine on another machine, and say how the rest gets there."""
    from cloister.runtimes import oci_remote
    from cloister.session import away
    from cloister.workspaces import store

    name = start.kept.record.name or catalogue.DEFAULT_NAME
    stored = store.load(start.project, name)
    if stored is None:
        raise TypeError("the workspace is in a directory of this host")
    agent = _agent(start.facts, start.source)
    home, work = away.begin(start.project, stored, place.engine, (agent.uid, agent.gid), start.tell)
    mount_points = _home(start, place)
    os.mkdir(mount_points, 0o700)
    return oci_remote.Put(
        engine=place.engine,
        names=_names(start),
        image=place.runtime.tag,
        volumes={mount_points: home, start.source: work},
        made=(start.public_directory, f"{start.public_directory}.files"),
        home=mount_points,
    )


def outpost(
    plan: Plan, place: Place, record: registry.Record, *, state_directory: str
) -> dict[str, object] | None:
    """How a gateway's container is run (outpost/near.py), once the engine has what that needs; None: it runs here."""
    if not place.elsewhere:
        return None
    engine = place.engine
    project = os.path.basename(os.path.dirname(os.path.dirname(record.public_directory)))
    names = oci_exec_argv.Names(sandbox=record.sandbox_id, project=project)
    oci.make_gateway_place(engine, names, place.runtime)
    return {
        "argv": oci.gateway_argv(engine, names, place.runtime, seccomp=_profile(state_directory)),
        "environment": dict(engine.environment),
        "remove": [engine.argv(argv) for argv in oci_argv.remove(engine.name, names)],
        "bound": live.bound(plan),
    }


def recorded(plan: Plan, place: Place) -> registry.Container:
    """How later commands reach it; limits that the engine cannot hold are theirs to set."""
    limits, held = view.Settings(plan).limits, place.engine.limits
    return registry.Container(
        engine=place.engine.name,
        program=place.engine.program,
        environment=tuple(place.engine.environment.items()),
        image=place.image.id,
        has_sh=place.image.has_sh,
        pids=None if held else limits.pids,
        memory_bytes=None if held else limits.memory_bytes,
        gateway=place.elsewhere,
    )


def remove(record: registry.Record, tell: Callable[[str], None]) -> None:
    """Remove the containers of a sandbox, and the files that were made for them. Idempotent."""
    container = record.container
    if container is None:
        return
    engine, named = _engine(container), oci_exec_argv.Names(sandbox=record.sandbox_id, project="")
    try:
        oci.remove(engine, named)
    except CloisterError as error:
        if record.init is not None and registry.alive(record.init):
            raise
        tell(f"{error.brief}; when the engine is back: {engine.name} rm --force {named.agent} {named.holder}")
    oci.remove_files(record.public_directory)


def remove_gateway(record: registry.Record, tell: Callable[[str], None]) -> None:
    """Remove the container of a sandbox's gateway, and its volume. Idempotent."""
    container = record.container
    if container is None:
        return
    engine, named = _engine(container), oci_exec_argv.Names(sandbox=record.sandbox_id, project="")
    try:
        oci.remove_gateway(engine, named)
    except CloisterError as error:
        tell(
            f"{error.brief}; when the engine is back: {engine.name} rm --force {named.gateway}; "
            f"{engine.name} volume rm --force {named.volume} {named.files}"
        )


def _engine(container: registry.Container) -> engines.Engine:
    return engines.again(container.engine, container.program, container.environment)


def _agent(facts: Facts, source: str) -> Facts:
    """The user as the container knows them: the host's own number, which is on the files, and never root's."""
    if os.geteuid() != 0:
        return facts
    uid, gid = staging.agent_ids(source)
    return replace(facts, uid=uid, gid=gid)


def _names(start: live.Start) -> oci_exec_argv.Names:
    return oci_exec_argv.Names(sandbox=start.kept.record.sandbox_id, project=start.project.id)


def _launch(start: live.Start, place: Place, put: Put | None) -> oci.Launch:
    attached = start.on_started is None
    return oci.Launch(
        engine=place.engine,
        names=_names(start),
        image=place.image,
        runtime=place.runtime,
        seccomp=_profile(start.state_directory),
        directory=start.public_directory,
        public_directory=start.public_directory,
        ca_bundle=start.gateway.ca_bundle,
        gateway=start.gateway.control,
        passed=(lambda: _passed(start)) if place.elsewhere else None,
        put=put,
        bound=live.bound(start.plan),
        attached=attached,
        terminal=attached and os.isatty(0) and os.isatty(1),
        hostname=view.HOSTNAME,
        unset=view.Settings(start.plan).package_unset,
    )


def _passed(start: live.Start) -> bool:
    """Whether the gateway in its container has its sockets. CloisterError if it will not."""
    gateway = start.gateway
    if not gateway.read(start.tell) or gateway.failure:
        raise gateway.died("its container ended before it served")
    if gateway.holder_failure:
        raise HostError(
            "the sandbox's network could not be set up in its container",
            details=gateway.holder_failure,
            resolution="run: cloister doctor; or do without containers: --runtime embedded",
        )
    return gateway.ready


def _profile(directory: str) -> str:
    """The file of the engine's system call filter; written again if it is not that of this version."""
    path = f"{directory}/seccomp-profile.json"
    text = seccomp_profile.profile()
    if files.read_text(path) != text:
        files.make_private_directory(directory)
        files.write_atomic(path, text.encode())
    return path


def _check_mounts(
    init: int | None, running: oci.Running, spec: SandboxSpec, found_workspace: os.stat_result
) -> None:
    """See `mount_check.py`. What cannot be looked at, or cannot be held back, does not run beside another sandbox."""
    if init is None or not running.held:
        raise HostError(
            "another sandbox of this workspace is alive, and whether it disturbs this one cannot be seen",
            details="the image has no /bin/sh, or the engine's processes are not visible here",
            resolution="stop the other sandbox, and start this one again",
        )
    live.check_mounts(spec, init, found_workspace)


def _wait(
    waiter: Waiter, running: oci.Running, start: live.Start, found: Protection, watch: HostWatch | None
) -> int:
    line = running.line.connection if running.line is not None else None
    if running.client is None:
        raise TypeError("the sandbox has not been started")

    def replaced() -> bool:
        if watch is not None:
            watch.check()
        return True

    def holder_ended() -> bool:
        with suppress(OSError):
            if line is not None and line.recv(1 << 10):
                return True
        raise HostError(
            "the container that holds the sandbox's network ended, so the sandbox was stopped",
            resolution="start it again; see whether the engine is well",
        )

    waiter.until_ended(
        running.client.pid,
        start.gateway,
        line.fileno() if line is not None else watch.fileno() if watch is not None else None,
        holder_ended if line is not None else replaced,
        lambda init: live.guard(start, found, init),
    )
    proc.reap(running.client, timeout_s=_END_S)
    code = running.exit_code()
    if running.line is not None:
        running.line.close()
    return code
