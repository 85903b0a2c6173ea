"""`cloister verify`: make a sandbox with the user's configuration, attack it from within, look from outside, judge.

Rule 1: what is attacked is a sandbox as `cloister run` makes it, in a throw-away workspace; a live one (`--sandbox`)
        is attacked only in ways that leave nothing behind, and without the verification's own origins.
Rule 2: production code has no switch that weakens a sandbox: the mutations are in tests/verify alone.
"""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from cloister import __version__
from cloister.config.directories import Project
from cloister.config.settings import Overrides
from cloister.errors import CloisterError, HostError, UsageError
from cloister.runtimes import engine as engines
from cloister.sandbox import facts as host_facts
from cloister.sandbox import plan as plans
from cloister.sandbox import registry, view
from cloister.session import cleanup, prepare
from cloister.session.run import RunOptions, Stage, run
from cloister.system import files
from cloister.values import dataclass, replace
from cloister.verify import live, observed, oddities, overlay, passes, program, verdict
from cloister.verify import place as places
from cloister.verify.attacker import COMMAND, Attacker
from cloister.verify.observed import Seen
from cloister.verify.outside import main as outside
from cloister.verify.outside import world as worlds
from cloister.verify.outside.turns import Turns
from cloister.verify.passes import Progress
from cloister.verify.place import Place
from cloister.verify.probes import BY_ID, HOST, PROBES, Probe
from cloister.verify.verdict import EXEC, FIRST, Result, Told, Witness
from cloister.verify.witnesses import Witnesses, wait_for

_ARRIVAL_S = 2.0


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
    left_out: tuple[str, ...] = ()  # settings of the user's that did not count


def verify(options: Options, environ: Mapping[str, str], progress: Progress) -> Report:
    """Attack, and judge. CloisterError if there is nothing to attack."""
    chosen = probes(options.only)
    started, clock = time.time(), time.monotonic()
    home = host_facts.look(environ).home
    project = prepare.find_project(prepare.start_directory(options.directory), home, environ)
    plan = prepare.current_plan(
        project, environ, Overrides(runtime=options.runtime) if options.runtime else None
    )
    plan = _with_image(plan, project.workspace)
    if options.sandbox is not None:
        made: tuple[str, ...] = (EXEC,)
        results = live.attacked(options.sandbox, plan, chosen, environ, progress)
    else:
        made = (FIRST, EXEC, HOST)
        _check_here(plan, environ, project)
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
        passes=made,
        results=tuple(results),
        left_out=overlay.left_out(plan) if options.sandbox is None else (),
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


def _check_here(plan: plans.Plan, environ: Mapping[str, str], project: Project) -> None:
    """The verification's own workspaces are directories of this host."""
    runtime = prepare.runtime(plan)
    if runtime == prepare.EMBEDDED:
        return
    engine = engines.find(runtime, environ, workspace=project.workspace, state_directory=project.shared)
    if engine.remote:
        raise HostError(
            f"sandboxes of the verification's own cannot be made on another machine ({engine.endpoint})",
            details="their workspaces are directories of this host, in which it plants and looks",
            resolution="attack one that runs there: cloister up, then: cloister verify --sandbox main",
        )


def _with_image(plan: plans.Plan, workspace: str) -> plans.Plan:
    """The image of the project's language by its name: the verification's own workspaces have no language."""
    sandbox = plan["sandbox"]
    if not isinstance(sandbox, dict) or prepare.runtime(plan) == prepare.EMBEDDED or sandbox.get("image"):
        return plan
    from cloister.images import choose  # deferred: it parses all layers

    return {**plan, "sandbox": {**sandbox, "image": choose.detected(workspace).image}}


def _runtime(sandbox: registry.Record | None, plan: plans.Plan) -> str:
    if sandbox is None:
        return prepare.runtime(plan)
    return sandbox.container.engine if sandbox.container is not None else prepare.EMBEDDED


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
        settings = view.Settings(plan)
        place = stack.enter_context(
            places.made(environ, home, protected=settings.texts("protect"), unmask=settings.texts("unmask"))
        )
        witnesses = stack.enter_context(passes.witnesses())
        files.write_atomic(place.ca_file, witnesses.ca_pem, mode=0o644)
        odd_files = oddities.made(place.project.state)
        adapted = overlay.adapted(plan, _origins(place, witnesses, odd_files))
        mark = stack.enter_context(passes.marked())
        first = Attacker(lambda: _begin(place, adapted, environ))
        stack.callback(first.end)
        later = Attacker(lambda: passes.enter(observed.record_of(place), environ), waits=True)
        stack.callback(later.end)
        turns = _turns(prepare.runtime(plan))
        stack.callback(turns.close)
        others = {name: _host_attacker(name, world, turns) for name, world in theirs.items()}
        for other in others.values():
            stack.callback(other.end)
        stack.callback(turns.end)
        witnesses.start()
        config = passes.config(
            witnesses,
            ids=passes.with_later(chosen),
            workspace=place.project.workspace,
            pids=passes.limit(adapted, "pids"),
            memory=passes.limit(adapted, "memory_bytes"),
            process_mark=mark,
            gateway_apart=_is_apart(adapted),
            placeholder=place.placeholder,
            file_canary=place.file_canary,
            canary_file=place.canary_file,
            private_files=[f"{home}/{path}" for path in passes.PRIVATE],
            memory_canary=place.memory_canary,
            planted=place.targets,
            masked=place.masked,
            runs=place.project.runs,
        )
        before = place.planted()
        told = {FIRST: passes.attack(first, config, FIRST, progress, begun=turns.begin)}
        seen = _looked_at(place)
        later.go()
        trouble = ""
        try:
            told[EXEC] = passes.attack(later, config, EXEC, progress)
        except CloisterError as error:  # the sandbox may have been killed for what the first one achieved
            trouble = f"exec: {error.brief}"
        seen += _looked_at(place) + Seen(breaches={"FS-1": observed.planted(before, place)})
        later.end()
        first.end()
        told[HOST] = {}
        for other in others.values():
            told[HOST] |= passes.heard(other.heard(time.monotonic() + passes.PASS_TIMEOUT_S), HOST, progress)
        cleanup.sweep(place.project, lambda _: None)  # if it had to be killed
        witness = _witness(place, witnesses, before, told, seen)
        if trouble:
            witness = replace(witness, failures={probe.id: (trouble,) for probe in chosen})
        return [verdict.judge(probe, told, witness, (FIRST, EXEC, HOST)) for probe in chosen]


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


def _turns(runtime: str) -> Turns:
    return Turns(outside.AT_ONCE if runtime == prepare.EMBEDDED else outside.AT_ONCE_WITH_ENGINE)


def _host_attacker(name: str, world: worlds.World, turns: Turns) -> Attacker:
    return Attacker(lambda: outside.run(name, world, turns))


def _note(text: str) -> None:
    """Into the child's log: a sandbox under attack raises alarms, as it must."""
    os.write(2, f"{text}\n".encode())


def _looked_at(place: Place) -> Seen:
    """What can be seen only while the attackers live."""
    record = observed.record_of(place)
    if record is None:
        return Seen()
    if record.container is None and record.init is None:
        return Seen()  # it ended as it began: the passes tell
    return observed.confinement(record.init) + observed.memory(
        record.init, value=place.secret, known=place.memory_canary
    )


def _witness(
    place: Place,
    witnesses: Witnesses,
    before: Mapping[str, str | None],
    told: Mapping[str, Mapping[str, Told]],
    seen: Seen,
) -> Witness:
    ids = [probe.id for probe in PROBES]
    expected = {name for name in ids if _sends_control(name) and any(name in one for one in told.values())}

    def missing() -> list[str]:
        arrived = verdict.marks(witnesses.seen, ids)
        return [name for name in expected if f"control-{name}" not in arrived]

    wait_for(lambda: not missing(), _ARRIVAL_S)
    failures: dict[str, tuple[str, ...]] = dict.fromkeys(
        missing(), ("the origin outside has not seen the control",)
    )
    if "SECRET-1" in expected and place.secret.encode() not in witnesses.seen:
        failures["SECRET-1"] = ("the origin outside has not got the credential",)
    planted = observed.planted(before, place)
    late: dict[str, tuple[str, ...]] = {
        "FS-1": planted,
        "CFG-1": tuple(one for one in planted if "cloister.toml" in one),
        "SECRET-1": observed.in_own_files(place),
    }
    if any("AUDIT-1" in one for one in told.values()):
        late["AUDIT-1"] = observed.unlogged(place)
    seen += Seen(breaches=late, failures=failures)
    seen += Seen(breaches=observed.strayed(witnesses.arrived, place))
    return Witness(
        marks=verdict.marks(witnesses.seen, ids),
        breaches=seen.breaches,
        failures=seen.failures,
        notes=seen.notes,
    )


def _sends_control(name: str) -> bool:
    return re.search(rf"control-{re.escape(name)}(?![0-9])", program.text()) is not None


def _is_apart(plan: plans.Plan) -> bool:
    """Whether the gateway has a network of its own, where this host's loopback is not."""
    sandbox = plan["sandbox"]
    return isinstance(sandbox, dict) and sandbox.get("gateway") == "container"


def _origins(place: Place, witnesses: Witnesses, odd_files: Mapping[str, str]) -> overlay.Origins:
    return overlay.Origins(
        https_port=witnesses.https.getsockname()[1],
        http_port=witnesses.http.getsockname()[1],
        ca_file=place.ca_file,
        secret_file=place.secret_file,
        placeholder=place.placeholder,
        odd_files=odd_files,
    )
