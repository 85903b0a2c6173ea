"""The first half of a start: find and check everything, then record what is about to exist.

Rule 1: nothing is created on disk before the workspace, the configuration and the host's tools have been checked.
Rule 2: everything that is created is on one ExitStack; what a `kill -9` leaves is in the record, for the next command.
"""

from __future__ import annotations

import os

from cloister.config import directories
from cloister.errors import CloisterError, HostError
from cloister.lean import ExitStack
from cloister.sandbox import facts as host_facts
from cloister.sandbox import plan as plans
from cloister.sandbox import registry, workspace
from cloister.session import gateway_process
from cloister.system import files

EMBEDDED = "embedded"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloister.config.compile import Overrides
    from cloister.config.directories import Project
    from cloister.network.publish import Bound
    from cloister.session.gateway_process import Gateway
    from cloister.session.run import RunOptions


def run(
    options: RunOptions, environ: Mapping[str, str], tell: Callable[[str], None], gateway: Gateway
) -> int:
    """As `session.run.run`, with the gateway already loading."""
    facts = host_facts.look(environ)
    start = start_directory(options.directory)
    project = find_project(start, facts.home, environ)
    place = project.workspace
    state = directories.state_directory(environ)
    clean_up(state, tell)
    plan = current_plan(project, environ, options.overrides)
    stage = options.stage
    if stage is not None:
        if stage.observer is not None:
            _check_embedded(plan)
        plan, project = stage.adapt(plan), stage.project
        source = project.workspace
    else:
        source = _source(plan, project, options.name, facts.home, tell)
    bubblewrap, container = None, None
    if runtime(plan) == EMBEDDED:
        bubblewrap = host_facts.bubblewrap(facts.path, state, workspace=place)
    else:
        from cloister.session import container as containers  # off the path of the embedded runtime
        from cloister.session import container_place

        container = container_place.find(plan, facts, state_directory=state, workspace=place)
    if source != place and os.path.exists(f"{os.path.dirname(source)}/away.json"):
        from cloister.session import away  # only where an engine on another machine has it

        away.settle(project, os.path.dirname(source), None if container is None else container.engine, tell)
    published = _publish(plan, project, tell)
    for directory in (project.runs, project.home, os.path.dirname(project.audit)):
        files.make_private_directory(directory)
    sandbox_id = f"{project.id}-{os.urandom(3).hex()}"
    me = registry.identify(os.getpid())
    if me is None:
        raise CloisterError("/proc is not mounted on this host, and cloister needs it")
    public = os.path.join(project.runs, sandbox_id)
    record = registry.Record(
        sandbox_id=sandbox_id,
        workspace=project.workspace,
        session=me,
        public_directory=public,
        name=options.name,
        plan=plans.fingerprint(plan),
        ports=tuple((one.port.host, one.port.sandbox) for one in published),
        container=None if container is None else containers.recorded(plan, container),
    )
    with ExitStack() as stack:
        kept = registry.Kept(project.runs, record)
        stack.callback(_finish, project, kept, gateway, tell)
        stack.callback(gateway_process.dismiss, gateway)
        os.mkdir(public, 0o755)
        files.write_atomic(os.path.join(public, "empty"), b"", mode=0o444)
        if plan.get("services"):
            from cloister.session import services  # only where some are declared

            plan = services.with_places(
                plan, project, record, environ, tell, untrusted=(source, project.home)
            )
        gateway.begin(
            sandbox_id=sandbox_id,
            plan=_with_java(plan, has_java=facts.has_java if container is None else container.image.has_java),
            audit_path=project.audit,
            public_directory=public,
            untrusted=[source, project.home],
            host_roots=next((path for path in host_facts.ROOT_BUNDLES if os.path.exists(path)), None),
            outpost=None
            if container is None
            else containers.outpost(plan, container, record, state_directory=state),
        )
        if published:
            from cloister.session import ports

            ports.give(published, gateway)
        from cloister.session import live  # deferred: loads while the gateway does

        made = live.Start(
            project=project,
            workspace=place,
            plan=plan,
            facts=facts,
            bubblewrap=bubblewrap,
            state_directory=state,
            public_directory=public,
            command=options.command,
            cwd=start,
            gateway=gateway,
            kept=kept,
            tell=tell,
            on_started=options.on_started,
            source=source,
            observer=stage.observer if stage is not None else None,
        )
        return live.run(made) if container is None else containers.run(made, container)


def runtime(plan: plans.Plan) -> str:
    """What makes the sandbox."""
    sandbox = plan.get("sandbox")
    return str(sandbox.get("runtime", EMBEDDED)) if isinstance(sandbox, dict) else EMBEDDED


def image(plan: plans.Plan) -> str:
    """The image that the configuration names; empty for that of the project's language."""
    sandbox = plan.get("sandbox")
    return str(sandbox.get("image") or "") if isinstance(sandbox, dict) else ""


def _check_embedded(plan: plans.Plan) -> None:
    """What a sandbox does can be watched only where the system call filter is ours to load."""
    if runtime(plan) != EMBEDDED:
        raise HostError(
            f"a sandbox of the runtime {runtime(plan)!r} cannot be watched",
            resolution='set [sandbox] runtime = "embedded" for this',
        )


def _source(plan: plans.Plan, project: Project, name: str, home: str, tell: Callable[[str], None]) -> str:
    """The directory of the host that the sandbox sees as its workspace: the project's own, or a private one."""
    sandbox = plan.get("sandbox")
    kind = sandbox.get("workspace", "bind") if isinstance(sandbox, dict) else "bind"
    if kind == "bind":
        return project.workspace
    from cloister.sandbox import catalogue  # here and below: off the hot path
    from cloister.workspaces import materialise

    unmask = sandbox.get("unmask", ()) if isinstance(sandbox, dict) else ()
    return materialise.materialise(
        project, str(kind), name or catalogue.DEFAULT_NAME, home=home, unmask=unmask, tell=tell
    )


def clean_up(state_directory: str, tell: Callable[[str], None]) -> None:
    """Remove what killed sessions have left, of every project. Costs a listing if there is nothing."""
    if any(registry.any_record(runs) for runs in directories.all_runs(state_directory)):
        from cloister.session import cleanup  # deferred: seldom there is anything to clean

        cleanup.sweep_all(state_directory, tell)


def _finish(project: Project, kept: registry.Kept, gateway: Gateway, tell: Callable[[str], None]) -> None:
    from cloister.session import cleanup

    cleanup.finish(project, kept.record, tell, before_forgetting=lambda: gateway_process.stop(gateway))


def _publish(plan: plans.Plan, project: Project, tell: Callable[[str], None]) -> tuple[Bound, ...]:
    """Take the ports of this machine that are published. HostError if one is in use."""
    settings = plan["sandbox"]
    if not isinstance(settings, dict) or not (settings.get("ports") or settings.get("detect_ports")):
        return ()
    from cloister.session import ports  # only where a port is published

    return ports.take(settings, project.workspace, tell)


def _with_java(plan: plans.Plan, *, has_java: bool) -> plans.Plan:
    """The gateway makes a trust store in Java's own format if there is a JVM that would need it."""
    sandbox = plan["sandbox"]
    return {**plan, "sandbox": {**sandbox, "java": has_java}} if isinstance(sandbox, dict) else plan


def find_project(start: str, home: str, environ: Mapping[str, str]) -> Project:
    """The project around `start`. WorkspaceError if it must not be one."""
    workspace.check_directory(start)
    place = workspace.find(start, home)
    workspace.check(place, home, environ)
    return directories.project(place, environ)


def start_directory(named: str | None) -> str:
    """The directory that the user named, or the current one."""
    if named is not None:
        return os.path.realpath(named)
    try:
        return os.getcwd()
    except FileNotFoundError as error:
        raise CloisterError(
            "the current directory does not exist any more",
            resolution="cd into a project, or name one with -C DIR",
        ) from error


def current_plan(project: Project, environ: Mapping[str, str], overrides: Overrides | None) -> plans.Plan:
    """The stored plan if it still holds and nothing overrides it; else one compiled anew, with all that this checks."""
    if overrides is None:
        sources = {directories.user_file(environ), project.file, project.adopted}
        stored = plans.load_current(project.plan, sources)
        if stored is not None:
            return stored
    from cloister.session.compile_apart import compile_apart  # off the hot path

    plan = compile_apart(project.workspace, environ, overrides)
    if overrides is None:
        files.make_private_directory(project.state)
        plans.store(project.plan, plan)
    return plan
