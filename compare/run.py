"""One run: the laboratory, the engine, one peer after the other, what each probe found."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cloister.errors import CloisterError
from cloister.verify import observed, program, verdict
from cloister.verify import place as places
from cloister.verify.overlay import NAMES
from cloister.verify.passes import PRIVATE, marked
from cloister.verify.place import Place
from cloister.verify.probes import LATER as OF_LATER
from cloister.verify.verdict import EXEC, FIRST, Told
from cloister.verify.witnesses import wait_for
from compare import attack, engine, laboratory
from compare.judge import LATER, Cell, Finding, Observed, judged
from compare.laboratory import HOST, UID, Laboratory
from compare.peers import PEERS, WITHOUT_ENGINE, described
from compare.sandbox import MEMORY_BYTES, SECRET_VARIABLE, Sandbox, Task, UnavailableError

TIMEOUT_S, ALARM_S = 170.0, 150  # of one program; peers that answer nothing make it wait
# By themselves, and last: what ID-9 has got from an origin that echoes would be found in the program's own memory by
# SECRET-1; and what FS-1 plants (a devcontainer's own description) can make a peer fail at its next command.
ALONE = ("TLS-2", "TLS-4")  # slow, where nobody answers: the program as a whole has a time
APART = ("SECRET-1", "FS-1", "CFG-1")
_ARRIVAL_S = 3.0
_PREFIX = "cloister-compare-"
_DOCKER_GATEWAY = "172.17.0.1"


@dataclass(frozen=True, kw_only=True)
class Column:
    """What one peer did. `trouble`: why it was not run."""

    name: str
    version: str
    cells: Mapping[str, Cell]
    trouble: str = ""
    duration_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    probes: tuple[str, ...]
    columns: tuple[Column, ...]
    kernel: str
    machine: str
    started: float  # seconds since 1970


def compared(names: Sequence[str], probes: Sequence[str]) -> Iterator[Column]:
    """Each peer's column, as it is done. This process moves into the laboratory, for good."""
    with ExitStack() as stack:
        why = _without_engine(names)
        versions = {name: _version(name) for name in names}
        base = stack.enter_context(_scratch())
        found = stack.enter_context(laboratory.made(base))
        docker: engine.Engine | str = why
        if not why:
            try:
                docker = stack.enter_context(engine.started(base))
            except RuntimeError as error:
                docker = str(error)
        for name in names:
            version = versions[name]
            if isinstance(version, UnavailableError):
                yield _not_run(name, "", probes, str(version))
            else:
                yield _column(name, version, found, docker, probes)


def _without_engine(names: Sequence[str]) -> str:
    """Why there is no engine; "" if there can be one. Its image is made now, while Debian's packages can be reached."""
    if set(names) <= set(WITHOUT_ENGINE):
        return "no peer needs one"
    why = engine.missing()
    if not why:
        try:
            engine.image()
        except RuntimeError as error:
            why = str(error)
    return why


def _version(name: str) -> str | UnavailableError:
    """Before the laboratory is entered: from there, no registry can be reached."""
    try:
        return PEERS[name].version()
    except UnavailableError as error:
        return error


@contextmanager
def _scratch() -> Iterator[Path]:
    for left in Path("/var/tmp").glob(f"{_PREFIX}*"):  # of one that was killed
        if not Path(f"/proc/{left.name.removeprefix(_PREFIX).partition('-')[0]}").exists():
            shutil.rmtree(left, ignore_errors=True)
    base = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir="/var/tmp"))
    base.chmod(0o755)
    try:
        yield base
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _column(
    name: str, version: str, found: Laboratory, docker: engine.Engine | str, probes: Sequence[str]
) -> Column:
    clock = time.monotonic()
    about = described()[name]
    tried = [one for one in probes if one not in about.not_offered]
    try:
        with _place(found) as place, marked() as mark:
            task = Task(laboratory=found, place=place, engine=docker)
            before_it = found.position()
            with PEERS[name].made(task) as sandbox:
                saw = _attacked(sandbox, task, tried, mark, before_it)
    except (UnavailableError, CloisterError, RuntimeError, OSError, subprocess.SubprocessError) as error:
        return _not_run(name, version, probes, " ".join(str(error).split()))
    cells = judged(probes, about, saw)
    return Column(name=name, version=version, cells=cells, duration_s=time.monotonic() - clock)


def _not_run(name: str, version: str, probes: Sequence[str], why: str) -> Column:
    cells = {one: Cell(finding=Finding.NOT_RUN, reason=why) for one in probes}
    return Column(name=name, version=version, cells=cells, trouble=why)


@contextmanager
def _place(found: Laboratory) -> Iterator[Place]:
    """The workspace and the canaries, the ordinary user's; and private files in the home, with the canary in them."""
    home = found.home
    with places.made({"HOME": str(home)}, str(home)) as place:
        for path in PRIVATE:
            file = home / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(place.file_canary)
        for directory, _, files in os.walk(home):
            for one in (directory, *(f"{directory}/{file}" for file in files)):
                os.chown(one, UID, UID, follow_symlinks=False)
        yield place


def _attacked(
    sandbox: Sandbox, task: Task, tried: Sequence[str], mark: str, before_it: tuple[int, ...]
) -> Observed:
    place, found = task.place, task.laboratory
    directory = place.project.workspace
    before = place.planted()
    config = _config(sandbox, task, mark)
    told: dict[str, dict[str, Told]] = {FIRST: {}, EXEC: {}}

    @contextmanager
    def attacking(which: str, prefix: Sequence[str], ids: Sequence[str]) -> Iterator[None]:
        with attack.told(sandbox, prefix, {**config, "only": list(ids)}, directory, TIMEOUT_S) as said:
            told[which].update(said)
            yield

    with attacking(FIRST, sandbox.first, [one for one in tried if one not in (*ALONE, *APART, LATER)]):
        if LATER in tried and sandbox.later:
            with attacking(EXEC, sandbox.later, OF_LATER):
                pass
    for group in (ALONE, APART):
        ids = [one for one in tried if one in group]
        # What told nothing is judged as that: a control that failed.
        with suppress(UnavailableError):
            if ids:
                with attacking(FIRST, sandbox.first, ids):
                    pass
    controls = frozenset(one for one in tried if _sends_control(one))

    def arrived() -> bool:
        marks = verdict.marks(b"\n".join(data for _, data in found.since(before_it)), list(controls))
        return all(f"control-{one}" in marks for one in controls)

    wait_for(arrived, _ARRIVAL_S)
    return Observed(
        arrived=found.since(before_it),
        secret=place.secret,
        planted=observed.planted(before, place),
        log=sandbox.log() if sandbox.log else None,
        controls=controls,
        told=told,
    )


def _sends_control(name: str) -> bool:
    return re.search(rf"control-{re.escape(name)}(?![0-9])", program.text()) is not None


def _config(sandbox: Sandbox, task: Task, mark: str) -> dict[str, object]:
    host, place = task.laboratory.host, task.place
    return {
        "names": NAMES,
        "tcp_port": host.tcp.getsockname()[1],
        "udp_port": host.udp.getsockname()[1],
        "abstract": host.abstract_name,
        "host_addresses": [HOST, _DOCKER_GATEWAY],
        "workspace": sandbox.workspace,
        "pids": sandbox.pids,
        "memory": MEMORY_BYTES,
        "alarm_s": ALARM_S,
        "origin_port": 443,
        "gateway_apart": True,
        "private_answers": len(laboratory.PRIVATE["private"]),
        "process_mark": mark,
        "file_canary": place.file_canary,
        "canary_file": place.canary_file,
        "private_files": [f"{task.laboratory.home}/{path}" for path in PRIVATE],
        "planted": place.targets,
        "masked": place.masked,
        "memory_canary": place.memory_canary,
        "runs": place.project.runs,
        "proxy": sandbox.proxy,
        "sends": sandbox.sends,
        "variable": SECRET_VARIABLE,
    }


def comparison(columns: Sequence[Column], probes: Sequence[str], started: float) -> Comparison:
    return Comparison(
        probes=tuple(probes),
        columns=tuple(columns),
        kernel=platform.release(),
        machine=platform.machine(),
        started=started,
    )
