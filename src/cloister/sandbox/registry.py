"""Records of live sandboxes: what exists because of them, so that a later command can remove it.

Rule 1: written before anything is created, removed after everything else is gone.
Rule 2: a process is named by pid *and* start time: pids are used again.
Rule 3: what uses it (session/cleanup.py) is idempotent; it may be killed at any point and run again.
"""

from __future__ import annotations

import os

from cloister.lean import json, signal
from cloister.system import files
from cloister.values import dataclass, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypedDict, Unpack

    class Changes(TypedDict, total=False):
        """The fields of a record that become known as a sandbox starts."""

        others: tuple[Process, ...]
        cgroup: str
        nested: tuple[str, ...]
        launched: bool
        init: Process | None
        container: Container | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process for the life of the host: pid and start time (clock ticks after boot, proc(5))."""

    pid: int
    started: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """How a sandbox of a container engine is reached: by the same client, and with the environment that it had.

    `has_sh`: the image has /bin/sh. `pids` and `memory_bytes` are None where the engine holds the limits, or nothing.
    """

    engine: str
    program: str
    environment: tuple[tuple[str, str], ...]
    image: str = ""  # its id
    has_sh: bool = True
    pids: int | None = None
    memory_bytes: int | None = None
    gateway: bool = False  # the gateway runs in a container too


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One sandbox that is, or was, alive."""

    sandbox_id: str
    workspace: str
    session: Process
    others: tuple[Process, ...] = ()  # gateway, plumber/bwrap
    cgroup: str = ""
    public_directory: str = ""
    nested: tuple[
        str, ...
    ] = ()  # what the host would execute and that was there at start (sandbox/quarantine.py)
    launched: bool = False  # whether an agent may have run
    name: str = ""  # of a kept sandbox (kept.py); one that `run` made has none
    init: Process | None = None  # the sandbox's pid 1
    plan: str = ""  # the fingerprint of the plan that it runs with
    container: Container | None = None  # None: the embedded runtime
    ports: tuple[tuple[int, int], ...] = ()  # published: this machine's, the sandbox's


class Kept:
    """A record and its file, changed together."""

    def __init__(self, directory: str, record: Record) -> None:
        self.record = record
        self._directory = directory
        write(directory, record)

    def update(self, **changes: Unpack[Changes]) -> None:
        """Change fields of the record, on disk too."""
        self.record = replace(self.record, **changes)
        write(self._directory, self.record)


def identify(pid: int) -> Process | None:
    """The identity of a running process; None if it is gone (or a zombie)."""
    try:
        stat = files.read(f"/proc/{pid}/stat") if os.path.exists(f"/proc/{pid}") else None
    except ProcessLookupError:  # it was reaped between open(2) and read(2)
        return None
    if not stat:
        return None
    # The command's name may hold spaces and parentheses: fields count from the last ")".
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else Process(pid=pid, started=int(fields[19]))


def alive(process: Process) -> bool:
    """Whether that very process still runs."""
    try:
        return identify(process.pid) == process
    except (OSError, ValueError):
        return False


def children(pid: int) -> list[int]:
    """The processes that a process has started, in that order. OSError if it is gone."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as file:
        return [int(child) for child in file.read().split()]


def write(directory: str, record: Record) -> None:
    """Store or replace a record."""
    content = {
        "sandbox": record.sandbox_id,
        "workspace": record.workspace,
        "session": [record.session.pid, record.session.started],
        "others": [[process.pid, process.started] for process in record.others],
        "cgroup": record.cgroup,
        "public_directory": record.public_directory,
        "nested": list(record.nested),
        "launched": record.launched,
        "name": record.name,
        "plan": record.plan,
        "init": None if record.init is None else [record.init.pid, record.init.started],
        "container": None if record.container is None else _document(record.container),
        "ports": [list(pair) for pair in record.ports],
    }
    files.write_atomic(_path(directory, record.sandbox_id), json.dumps(content).encode())


def remove(directory: str, sandbox_id: str) -> None:
    """Forget a sandbox. Idempotent."""
    files.remove(_path(directory, sandbox_id))


def any_record(directory: str) -> bool:
    """Whether there is anything to look at; a listing is all that a start pays for it."""
    try:
        return any(name.endswith((".json", ".tmp")) for name in os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return False


def exists(directory: str, sandbox_id: str) -> bool:
    """Whether a sandbox is still recorded."""
    return os.path.exists(_path(directory, sandbox_id))


def records(directory: str) -> Iterator[Record]:
    """All records. One that cannot be read is removed (it is ours, and written atomically: never half),
    and so is what a killed writer left.
    """
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return
    for name in sorted(names):
        if files.abandoned(name):  # killed while it wrote: what the record was to tell had not been begun
            files.remove(os.path.join(directory, name))
        if not name.endswith(".json"):
            continue
        content = files.read(os.path.join(directory, name))
        if content is None:
            continue
        try:
            data = json.loads(content)
            yield Record(
                sandbox_id=data["sandbox"],
                workspace=data["workspace"],
                session=_process(data["session"]),
                others=tuple(_process(one) for one in data["others"]),
                cgroup=data["cgroup"],
                public_directory=data["public_directory"],
                nested=tuple(data.get("nested", ())),
                launched=bool(data.get("launched", True)),
                name=str(data.get("name", "")),
                plan=str(data.get("plan", "")),
                init=_process(data["init"]) if data.get("init") else None,
                container=_container(data["container"]) if data.get("container") else None,
                ports=tuple((int(host), int(inside)) for host, inside in data.get("ports", ())),
            )
        except (ValueError, KeyError, TypeError):
            files.remove(os.path.join(directory, name))


def kill(process: Process) -> None:
    """SIGKILL that very process, never another one that got its pid."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        return
    try:
        if alive(process):  # checked after the pidfd holds the pid
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except OSError:
        return
    finally:
        os.close(descriptor)


def _process(pair: list[int]) -> Process:
    pid, started = pair
    return Process(pid=pid, started=started)


def _document(container: Container) -> dict[str, object]:
    named = {name: getattr(container, name) for name in Container.__slots__}
    return {**named, "environment": dict(container.environment)}


def _container(data: dict[str, object]) -> Container:
    return Container(**{**data, "environment": tuple(dict(data["environment"]).items())})  # type: ignore[arg-type, call-overload]  # as _document wrote it


def _path(directory: str, sandbox_id: str) -> str:
    return os.path.join(directory, f"{sandbox_id}.json")
