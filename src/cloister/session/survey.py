"""What kept and running sandboxes there are, of every project of the user, and how each of them does.

Rule 1: looks only, and takes a sandbox that ends meanwhile as one that does not run.
"""

from __future__ import annotations

import functools
import os
import time
from contextlib import suppress
from dataclasses import dataclass

from cloister.audit.read import Reader, Selection
from cloister.config import directories
from cloister.network import listeners
from cloister.sandbox import catalogue, registry
from cloister.session import stop
from cloister.system import files

_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A published port: this machine's, the sandbox's, and whether a server listens there (None: not known)."""

    host: int
    sandbox: int
    up: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One sandbox. `name` is empty for one that `cloister run` made; what is None is not known, or it does not run."""

    name: str
    sandbox_id: str
    workspace: str
    runtime: str
    profile: str
    running: bool
    uptime_s: float | None = None
    memory_bytes: int | None = None
    processes: int | None = None
    refusals: int | None = None
    ports: tuple[Port, ...] = ()


def survey(state_directory: str, workspace: str | None = None) -> list[Seen]:
    """Every sandbox, or those of one workspace; by workspace and name."""
    found: list[Seen] = []
    for runs in directories.all_runs(state_directory):
        project = directories.Project(workspace="", state=os.path.dirname(runs))
        live = {one.sandbox_id: one for one in registry.records(runs) if registry.alive(one.session)}
        named = {one.name: one for one in live.values() if one.name}
        kept = list(catalogue.all_of(project))
        found += [_kept(project, one, named.get(one.name)) for one in kept]
        found += [_running(project, one, "", "") for one in live.values() if not one.name]
    return sorted(
        (one for one in found if workspace in (None, one.workspace)),
        key=lambda one: (one.workspace, one.name),
    )


def _kept(project: directories.Project, kept: catalogue.Kept, record: registry.Record | None) -> Seen:
    if record is not None:
        return _running(project, record, kept.profile, kept.runtime)
    return Seen(
        name=kept.name,
        sandbox_id="",
        workspace=kept.workspace,
        runtime=kept.runtime,
        profile=kept.profile,
        running=False,
    )


def _running(project: directories.Project, record: registry.Record, profile: str, runtime: str) -> Seen:
    if record.init is None and record.container is not None:
        from cloister.session import look_within  # of a virtual or another machine only

        said = look_within.look(record)
        memory_bytes, processes, listens = said.memory_bytes, said.processes, said.listens
    else:
        pids = list(stop.inside(record.init)) if record.init is not None else []
        memory_bytes, processes = _memory_bytes(record.cgroup, pids), len(pids) or None
        listens = functools.partial(_listens, record)
    return Seen(
        name=record.name,
        sandbox_id=record.sandbox_id,
        workspace=record.workspace,
        runtime=runtime or "embedded",
        profile=profile,
        running=True,
        uptime_s=_uptime_s(record.session),
        memory_bytes=memory_bytes,
        processes=processes,
        refusals=_refusals(project.audit, record.sandbox_id),
        ports=tuple(
            Port(host=host, sandbox=inside, up=listens(inside)) for host, inside in sorted(record.ports)
        ),
    )


def _listens(record: registry.Record, port: int) -> bool | None:
    return listeners.listens(record.init.pid, port) if record.init is not None else None


def _uptime_s(session: registry.Process) -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME) - session.started / _CLOCK_TICKS


def _memory_bytes(cgroup: str, pids: list[int]) -> int | None:
    """What its cgroup counts; else the processes' proportional shares, which leave out file caches."""
    if cgroup:
        with suppress(OSError, ValueError):
            return int(files.read_text(f"{cgroup}/memory.current") or "")
    total = 0
    for pid in pids:
        with suppress(OSError, ValueError), open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            total += next(int(line.split()[1]) << 10 for line in file if line.startswith("Pss:"))
    return total or None


def _refusals(audit: str, sandbox_id: str) -> int:
    selection = Selection(sandbox=sandbox_id, refused_only=True)
    reader = Reader(audit)
    try:
        return sum(selection.covers(entry) for entry in reader.poll())
    finally:
        reader.close()
