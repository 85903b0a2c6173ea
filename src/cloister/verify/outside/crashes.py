"""`kill -9` of every part of a sandbox: the next command finds what is left, and nothing of it stays (AV-3)."""

from __future__ import annotations

import os
import select
from collections.abc import Callable

from cloister.config.directories import Project
from cloister.runtimes import oci_argv, oci_exec_argv
from cloister.runtimes.engine import Engine
from cloister.sandbox import registry
from cloister.session import stop
from cloister.session.prepare import EMBEDDED
from cloister.verify.inside.talk import Probe, RefusedError
from cloister.verify.outside.names import succeeded
from cloister.verify.outside.world import World
from cloister.verify.witnesses import wait_for

_END_S = 30.0
# Who is killed → its process.
_PROCESSES: dict[str, Callable[[registry.Record], registry.Process | None]] = {
    "session": lambda record: record.session,
    "gateway": lambda record: record.others[0] if record.others else None,
    "init": lambda record: record.init,
}
_HOLDER = "holder"  # of a container's network: a container itself, which the engine kills


def kills(found: Probe, world: World) -> None:
    """Kill each in a sandbox of its own, let the next command run, and look for what is left."""
    contents = {".git/HEAD": "ref: refs/heads/main\n", ".env": "A=1\n"}
    victims = [*_PROCESSES, *([] if world.runtime == EMBEDDED else [_HOLDER])]
    for victim in victims:
        project = world.project(f"killed-{victim}", contents)
        up = world.cloister("up", "-C", project.workspace)
        found.control(f"a sandbox whose {victim} is to be killed runs", _runs, project, up.said)
        for record in registry.records(project.runs):
            _kill_and_look(found, world, project, record, victim)
        world.cloister("stop", "-C", project.workspace)


def _kill_and_look(
    found: Probe, world: World, project: Project, record: registry.Record, victim: str
) -> None:
    before = "; ".join(_left(record, project))
    found.control(f"what it is made of can be seen ({victim})", succeeded, bool(before), before)
    reason = _kill(victim, record)
    if reason:
        found.note(f"the {victim} was not killed: {reason}")
        return
    if victim != "session":
        _await_end(record.session)
    ls = world.cloister("ls")
    found.control("the next command runs", succeeded, ls.code == 0, ls.said)
    found.attack(f"something is left after `kill -9` of the {victim}", _remains, record, project)


def _kill(victim: str, record: registry.Record) -> str:
    """Empty if it is dead; else why it is not."""
    if victim == _HOLDER and record.container is not None:
        names = oci_exec_argv.Names(sandbox=record.sandbox_id, project="")
        done = _engine(record.container).ask("kill", "--signal=KILL", names.holder)
        return done.errors.decode(errors="replace").strip()[:80] if done.code else ""
    process = _PROCESSES[victim](record)
    if process is None:
        return "it is no process that this host sees"
    registry.kill(process)
    return "" if wait_for(lambda: not registry.alive(process), _END_S) else "this user may not"


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
    engine = _engine(record.container)
    label = f"--filter=label={oci_argv.SANDBOX_LABEL}={record.sandbox_id}"
    listed = engine.ask("ps", "--all", label, "--format={{.Names}}")
    return [f"container {name}" for name in listed.output.decode(errors="replace").split()]


def _engine(container: registry.Container) -> Engine:
    return Engine(name=container.engine, program=container.program, environment=dict(container.environment))
