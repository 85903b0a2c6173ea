"""`cloister verify`: make a sandbox with the user's configuration, attack it from within, look from outside, judge.

Rule 1: what is attacked is a sandbox as `cloister run` makes it, in a throw-away workspace; a live one (`--sandbox`)
        is attacked only in ways that leave nothing behind, and without the verification's own origins.
Rule 2: production code has no switch that weakens a sandbox: the mutations are in tests/verify alone.
"""

from __future__ import annotations

import os
import platform
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from cloister import __version__
from cloister.config.settings import Overrides
from cloister.errors import CloisterError, UsageError
from cloister.sandbox import facts as host_facts
from cloister.sandbox import plan as plans
from cloister.sandbox import registry
from cloister.session import attach, cleanup, prepare
from cloister.session.run import RunOptions, Stage, run
from cloister.system import files
from cloister.values import dataclass, replace
from cloister.verify import observed, oddities, overlay, program, verdict
from cloister.verify import place as places
from cloister.verify.attacker import COMMAND, Attacker
from cloister.verify.outside import main as outside
from cloister.verify.outside import world as worlds
from cloister.verify.place import Place
from cloister.verify.probes import BY_ID, HOST, LATER, PROBES, Probe
from cloister.verify.verdict import EXEC, FIRST, Result, Told, Witness
from cloister.verify.witnesses import Witnesses, wait_for

PASS_TIMEOUT_S = 90.0
_ARRIVAL_S = 2.0
_TEMPORARY = "/tmp"  # noqa: S108 - the sandbox's own
_PRIVATE = (".ssh/id_ed25519", ".aws/credentials", ".config/gh/hosts.yml", ".netrc", ".bash_history")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to verify: the configuration of the project around `directory`, or of a live sandbox there.

    `command` is cloister's own, which the host's probes use: it takes arguments and returns an exit code.
    """

    command: worlds.Command
    directory: str | None = None
    runtime: str | None = None
    sandbox: registry.Record | None = None
    only: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found, and of what."""

    version: str
    kernel: str
    machine: str
    runtime: str
    policy: str  # the plan's fingerprint
    user: int
    started: float  # seconds since 1970
    duration_s: float
    passes: tuple[str, ...]
    results: tuple[Result, ...]


Progress = Callable[[str, str], None]  # pass, id


def verify(options: Options, environ: Mapping[str, str], progress: Progress) -> Report:
    """Attack, and judge. CloisterError if there is nothing to attack."""
    chosen = probes(options.only)
    started, clock = time.time(), time.monotonic()
    home = host_facts.look(environ).home
    project = prepare.find_project(prepare.start_directory(options.directory), home, environ)
    plan = prepare.current_plan(
        project, environ, Overrides(runtime=options.runtime) if options.runtime else None
    )
    if options.sandbox is not None:
        passes: tuple[str, ...] = (EXEC,)
        results = _live(options.sandbox, chosen, environ, progress)
    else:
        passes = (FIRST, EXEC, HOST)
        results = _staged(plan, home, chosen, environ, progress, command=options.command)
    report = Report(
        version=__version__,
        kernel=platform.release(),
        machine=platform.machine(),
        runtime=_runtime(options.sandbox, plan),
        policy=plans.fingerprint(plan) if options.sandbox is None else options.sandbox.plan,
        user=os.geteuid(),
        started=started,
        duration_s=time.monotonic() - clock,
        passes=passes,
        results=tuple(results),
    )
    from cloister.verify.report import document

    files.make_private_directory(project.state)
    files.write_atomic(f"{project.state}/verify.json", document(report).encode())
    return report


def probes(only: Sequence[str]) -> tuple[Probe, ...]:
    """Those that are named, or all. UsageError for one that there is not."""
    unknown = [name for name in only if name not in BY_ID]
    if unknown:
        raise UsageError(f"there is no probe {unknown[0]!r}", resolution="see: cloister verify --list")
    return tuple(probe for probe in PROBES if not only or probe.id in only)


def _runtime(sandbox: registry.Record | None, plan: plans.Plan) -> str:
    if sandbox is None:
        return prepare.runtime(plan)
    return sandbox.container.engine if sandbox.container is not None else prepare.EMBEDDED


def _live(
    record: registry.Record, chosen: Sequence[Probe], environ: Mapping[str, str], progress: Progress
) -> list[Result]:
    """Attack a sandbox that the user works in, from a later process."""
    suited = [probe for probe in chosen if not probe.own_origin]
    left_out = [
        Result(
            probe=probe,
            outcome=verdict.Outcome.NOT_APPLICABLE,
            reason="needs a workspace and origins of the verification's own: run it without --sandbox",
        )
        for probe in chosen
        if probe.own_origin
    ]
    with ExitStack() as stack:
        witnesses = stack.enter_context(_witnesses())
        mark = stack.enter_context(_marked())
        later = Attacker(lambda: _enter(record, environ))
        stack.callback(later.end)
        witnesses.start()
        config = _config(
            witnesses, ids=_with_later(suited), workspace=_TEMPORARY, pids=0, memory=0, process_mark=mark
        )
        told = {EXEC: _pass(later, config, EXEC, progress)}
        breaches = {} if record.init is None else {"K-1": observed.confinement(record.init)}
    witness = Witness(breaches=breaches, failures={})
    results = [verdict.judge(probe, told, witness, (EXEC,)) for probe in suited]
    return sorted((*results, *left_out), key=lambda one: PROBES.index(one.probe))


def _staged(
    plan: plans.Plan,
    home: str,
    chosen: Sequence[Probe],
    environ: Mapping[str, str],
    progress: Progress,
    *,
    command: worlds.Command,
) -> list[Result]:
    """Attack a sandbox of our own, with the plan's configuration."""
    with ExitStack() as stack:
        on_host = [probe.id for probe in chosen if HOST in probe.sides]
        theirs = stack.enter_context(worlds.made(on_host, environ, home, plan, command))
        place = stack.enter_context(places.made(environ, home))
        witnesses = stack.enter_context(_witnesses())
        files.write_atomic(place.ca_file, witnesses.ca_pem, mode=0o644)
        odd_files = oddities.made(place.project.state)
        adapted = overlay.adapted(plan, _origins(place, witnesses, odd_files))
        mark = stack.enter_context(_marked())
        first = Attacker(lambda: _begin(place, adapted, environ))
        stack.callback(first.end)
        later = Attacker(lambda: _enter(observed.record_of(place), environ), waits=True)
        stack.callback(later.end)
        others = {name: _host_attacker(name, world) for name, world in theirs.items()}
        for other in others.values():
            stack.callback(other.end)
        witnesses.start()
        config = _config(
            witnesses,
            ids=_with_later(chosen),
            workspace=place.project.workspace,
            pids=_limit(adapted, "pids"),
            memory=_limit(adapted, "memory_bytes"),
            process_mark=mark,
            placeholder=place.placeholder,
            file_canary=place.file_canary,
            canary_file=place.canary_file,
            private_files=[f"{home}/{path}" for path in _PRIVATE],
            planted=places.PLANTED,
            masked=places.MASKED,
            runs=place.project.runs,
        )
        before = place.planted()
        told = {FIRST: _pass(first, config, FIRST, progress)}
        seen = _looked_at(place)
        later.go()
        trouble = ""
        try:
            told[EXEC] = _pass(later, config, EXEC, progress)
        except CloisterError as error:  # the sandbox may have been killed for what the first one achieved
            trouble = f"exec: {error.brief}"
        seen = _joined(seen, _looked_at(place), {"FS-1": observed.planted(before, place)})
        later.end()
        first.end()
        told[HOST] = {}
        for other in others.values():
            told[HOST] |= _heard(other.heard(time.monotonic() + PASS_TIMEOUT_S), HOST, progress)
        cleanup.sweep(place.project, lambda _: None)  # if it had to be killed
        witness = _witness(place, witnesses, before, told, seen)
        if trouble:
            witness = replace(witness, failures={probe.id: (trouble,) for probe in chosen})
        return [verdict.judge(probe, told, witness, (FIRST, EXEC, HOST)) for probe in chosen]


@contextmanager
def _witnesses() -> Iterator[Witnesses]:
    found = Witnesses()
    try:
        yield found
    finally:
        found.close()


@contextmanager
def _marked() -> Iterator[str]:
    """A name for this process that a sandbox could find if it saw the host's processes."""
    mark = f"cvm{os.urandom(5).hex()}"
    with open("/proc/self/comm", "r+", encoding="utf-8") as file:
        before = file.read().strip()
    _rename(mark)
    try:
        yield mark
    finally:
        _rename(before)


def _rename(name: str) -> None:
    with open("/proc/self/comm", "w", encoding="utf-8") as file:
        file.write(name)


def _begin(place: Place, plan: plans.Plan, environ: Mapping[str, str]) -> int:
    """In a child: the sandbox, with the probes as its first process."""
    return run(
        RunOptions(
            command=COMMAND,
            directory=place.project.workspace,
            overrides=Overrides(no_project_file=True),
            stage=Stage(project=place.project, adapt=lambda _: plan),
        ),
        environ,
        _note,
    )


def _host_attacker(name: str, world: worlds.World) -> Attacker:
    return Attacker(lambda: outside.run(name, world))


def _note(text: str) -> None:
    """Into the child's log: a sandbox under attack raises alarms, as it must."""
    os.write(2, f"{text}\n".encode())


def _enter(record: registry.Record | None, environ: Mapping[str, str]) -> int:
    """In a child: the probes as a later process."""
    if record is None:
        raise UsageError("the sandbox has ended")
    return attach.execute(record, attach.Command(argv=COMMAND, directory=_TEMPORARY), environ)


def _pass(attacker: Attacker, config: Mapping[str, object], name: str, progress: Progress) -> dict[str, Told]:
    return _heard(attacker.lines(config, PASS_TIMEOUT_S), name, progress)


def _heard(lines: Iterator[bytes], name: str, progress: Progress) -> dict[str, Told]:
    found: dict[str, Told] = {}
    for line in lines:
        parsed = verdict.parse(line)
        if parsed is not None:
            found[parsed[0]] = parsed[1]
            progress(name, parsed[0])
    return found


def _looked_at(place: Place) -> observed.Found:
    """What can be seen only while the attackers live."""
    record = observed.record_of(place)
    if record is None or record.init is None:
        return {}
    leaked = [
        f"seen from outside: its value is in the memory of {who}"
        for who in observed.holds(record.init, place.secret)
    ]
    return {"K-1": observed.confinement(record.init), "SECRET-1": tuple(leaked)}


def _witness(
    place: Place,
    witnesses: Witnesses,
    before: Mapping[str, str | None],
    told: Mapping[str, Mapping[str, Told]],
    seen: observed.Found,
) -> Witness:
    ids = [probe.id for probe in PROBES]
    expected = {name for name in ids if _sends_control(name) and any(name in one for one in told.values())}

    def missing() -> list[str]:
        arrived = verdict.marks(witnesses.seen, ids)
        return [name for name in expected if f"control-{name}" not in arrived]

    wait_for(lambda: not missing(), _ARRIVAL_S)
    failures = dict.fromkeys(missing(), ("the origin outside has not seen the control",))
    if "SECRET-1" in expected and place.secret.encode() not in witnesses.seen:
        failures["SECRET-1"] = ("the origin outside has not got the credential",)
    planted = observed.planted(before, place)
    late: observed.Found = {
        "FS-1": planted,
        "CFG-1": tuple(one for one in planted if "cloister.toml" in one),
        "SECRET-1": observed.in_own_files(place),
    }
    if any("AUDIT-1" in one for one in told.values()):
        late["AUDIT-1"] = observed.unlogged(place)
    strayed = observed.strayed(witnesses.arrived, place)
    return Witness(
        marks=verdict.marks(witnesses.seen, ids), breaches=_joined(seen, late, strayed), failures=failures
    )


def _sends_control(name: str) -> bool:
    return re.search(rf"control-{re.escape(name)}(?![0-9])", program.text()) is not None


def _joined(*parts: observed.Found) -> observed.Found:
    names = {name for part in parts for name in part}
    return {name: tuple(dict.fromkeys(one for part in parts for one in part.get(name, ()))) for name in names}


def _with_later(chosen: Sequence[Probe]) -> list[str]:
    ids = [probe.id for probe in chosen]
    return [*ids, *(name for name in LATER if "K-7" in ids and name not in ids)]


def _origins(place: Place, witnesses: Witnesses, odd_files: Mapping[str, str]) -> overlay.Origins:
    return overlay.Origins(
        https_port=witnesses.https.getsockname()[1],
        http_port=witnesses.http.getsockname()[1],
        ca_file=place.ca_file,
        secret_file=place.secret_file,
        placeholder=place.placeholder,
        odd_files=odd_files,
    )


def _config(witnesses: Witnesses, *, ids: Sequence[str], workspace: str, **more: object) -> dict[str, object]:
    return {
        "only": list(ids),
        "names": overlay.NAMES,
        "tcp_port": witnesses.tcp.getsockname()[1],
        "udp_port": witnesses.udp.getsockname()[1],
        "origin_port": witnesses.https.getsockname()[1],
        "private_answers": len(overlay.ANSWERS["private"]),
        "abstract": witnesses.abstract_name,
        "host_addresses": _own_addresses(),
        "workspace": workspace,
        **more,
    }


def _own_addresses() -> list[str]:
    """The address that this host would speak from; connect(2) of a datagram socket sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))
        except OSError:
            return []
        return [str(sock.getsockname()[0])]


def _limit(plan: plans.Plan, name: str) -> int:
    sandbox = plan["sandbox"]
    found = sandbox.get(name) if isinstance(sandbox, dict) else None
    return found if isinstance(found, int) else 0
