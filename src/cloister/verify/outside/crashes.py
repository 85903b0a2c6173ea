"""`kill -9` of every part of a sandbox: the next command finds what is left, and nothing of it stays (AV-3)."""

from __future__ import annotations

import os
import select
from collections.abc import Callable

from cloister.config.directories import Project
from cloister.runtimes import oci_argv
from cloister.runtimes.engine import Engine
from cloister.sandbox import registry
from cloister.session import stop
from cloister.verify.inside.talk import Probe, RefusedError
from cloister.verify.outside.names import succeeded
from cloister.verify.outside.world import World
from cloister.verify.witnesses import wait_for

_END_S = 30.0
# Who is killed → (its process, whether the session cleans up itself).
_VICTIMS: dict[str, Callable[[registry.Record], registry.Process | None]] = {
    "session": lambda record: record.session,
    "gateway": lambda record: record.others[0] if record.others else None,
    "init": lambda record: record.init,
}


def kills(found: Probe, world: World) -> None:
    """Kill each in a sandbox of its own, let the next command run, and look for what is left."""
    contents = {".git/HEAD": "ref: refs/heads/main\n", ".env": "A=1\n"}
    for victim, process_of in _VICTIMS.items():
        project = world.project(f"killed-{victim}", contents)
        up = world.cloister("up", "-C", project.workspace)
        found.control(f"a sandbox whose {victim} is to be killed runs", _runs, project, up.said)
        record = next(iter(registry.records(project.runs)), None)
        process = process_of(record) if record is not None else None
        if record is None or process is None:
            found.note(f"the {victim} was not killed: it is no process that this host sees")
            continue
        before = _left(record, project)
        found.control(
            f"what it is made of can be seen ({victim})", succeeded, bool(before), "; ".join(before)
        )
        registry.kill(process)
        if not wait_for(lambda it=process: not registry.alive(it), _END_S):  # type: ignore[misc]
            found.note(f"the {victim} was not killed: this user may not")
            world.cloister("stop", "-C", project.workspace)
            continue
        if victim != "session":
            _await_end(record.session)
        ls = world.cloister("ls")
        found.control("the next command runs", succeeded, ls.code == 0, ls.said)
        found.attack(f"something is left after `kill -9` of the {victim}", _remains, record, project)
        world.cloister("stop", "-C", project.workspace)


def _runs(project: Project, said: str) -> str:
    records = list(registry.records(project.runs))
    if not records or not registry.alive(records[0].session):
        raise RefusedError(said)
    return "it does"


def _await_end(process: registry.Process) -> None:
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    if registry.alive(process):
        select.select([pidfd], [], [], _END_S)
    os.close(pidfd)


def _remains(record: registry.Record, project: Project) -> str:
    """RefusedError if nothing does; what was killed may take a moment to be gone."""
    wait_for(lambda: not _left(record, project), _END_S)
    left = _left(record, project)
    if not left:
        raise RefusedError("nothing")
    return "; ".join(left)


def _left(record: registry.Record, project: Project) -> list[str]:
    """What there is of a sandbox: processes, containers, its record, files, its cgroup, mount points."""
    processes = [record.session, *record.others]
    left = [f"process {one.pid}" for one in processes if registry.alive(one)]
    if record.init is not None:
        left += [f"process {pid} in it" for pid in stop.inside(record.init)]
    left += _containers(record)
    if os.path.isdir(project.runs):
        left += [f"{project.runs}/{name}" for name in os.listdir(project.runs)]
    if record.cgroup and os.path.exists(record.cgroup):
        left.append(record.cgroup)
    expected = {".git", ".env"}
    left += [f"{name} in the workspace" for name in os.listdir(project.workspace) if name not in expected]
    return left


def _containers(record: registry.Record) -> list[str]:
    if record.container is None:
        return []
    engine = Engine(
        name=record.container.engine,
        program=record.container.program,
        environment=dict(record.container.environment),
    )
    label = f"--filter=label={oci_argv.SANDBOX_LABEL}={record.sandbox_id}"
    listed = engine.ask("ps", "--all", label, "--format={{.Names}}")
    return [f"container {name}" for name in listed.output.decode(errors="replace").split()]
