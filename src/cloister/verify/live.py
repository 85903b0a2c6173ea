"""Attack a sandbox that the user works in, from a later process.

Rule 1: nothing is left behind: what is made lies in its /tmp and is removed, a file that is held is opened for writing
        and not written, and nothing is taken away from what runs there (processes, memory).
Rule 2: what needs a workspace, origins or a credential of the verification's own is not tried, and that is said.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress

from cloister.config import directories
from cloister.errors import WorkspaceError
from cloister.sandbox import plan as plans
from cloister.sandbox import protect, registry, scan, view
from cloister.sandbox.protect import Protection
from cloister.system import files
from cloister.verify import observed, passes, verdict
from cloister.verify.attacker import Attacker
from cloister.verify.outside.world import PREFIX
from cloister.verify.passes import Progress
from cloister.verify.probes import BY_GATEWAY, INSIDE, PROBES, Probe
from cloister.verify.verdict import EXEC, Outcome, Result, Witness

_SHOWN = 40  # paths that are tried
_OF_ITS_OWN = "needs origins, a workspace or a credential of the verification's own: run it without --sandbox"
_SANDBOXES = "makes sandboxes of its own: run it without --sandbox"


def attacked(
    record: registry.Record,
    plan: plans.Plan,
    chosen: Sequence[Probe],
    environ: Mapping[str, str],
    progress: Progress,
) -> list[Result]:
    """What each probe found in a live sandbox, or why it was not tried. `plan` is that of its project now."""
    suited = [probe for probe in chosen if not _reason(probe)]
    known = plans.fingerprint(plan) == record.plan
    home = directories.home(environ)
    with ExitStack() as stack:
        witnesses = stack.enter_context(passes.witnesses())
        mark = stack.enter_context(passes.marked())
        canary, canary_file = stack.enter_context(_beside(home))
        later = Attacker(lambda: passes.enter(record, environ))
        stack.callback(later.end)
        witnesses.start()
        config = passes.config(
            witnesses,
            ids=passes.with_later(suited),
            workspace=passes.TEMPORARY,
            live=True,
            by_gateway=BY_GATEWAY,
            pids=0,
            memory=passes.limit(plan, "memory_bytes") if known else 0,
            process_mark=mark,
            file_canary=canary,
            canary_file=canary_file,
            private_files=[f"{home}/{path}" for path in passes.PRIVATE],
            runs=os.path.dirname(record.public_directory),
            **_held(record, plan, home),
        )
        told = {EXEC: passes.attack(later, config, EXEC, progress)}
        seen = observed.confinement(record.init)
    witness = Witness(breaches=seen.breaches, failures=seen.failures, notes=seen.notes)
    results = [verdict.judge(probe, told, witness, (EXEC,)) for probe in suited]
    results += [
        Result(probe=probe, outcome=Outcome.NOT_APPLICABLE, reason=_reason(probe))
        for probe in chosen
        if _reason(probe)
    ]
    return sorted(results, key=lambda one: PROBES.index(one.probe))


def _reason(probe: Probe) -> str:
    """Why it is not tried in a live sandbox; empty if it is."""
    if INSIDE not in probe.sides:
        return _SANDBOXES
    return _OF_ITS_OWN if probe.own_origin else ""


@contextmanager
def _beside(home: str) -> Iterator[tuple[str, str]]:
    """A directory of the home that the sandbox must not see, with a file in it: what that holds, and its path."""
    directory, canary = f"{home}/{PREFIX}{os.getpid()}-neighbour", f"cvf-{os.urandom(16).hex()}"
    try:
        os.mkdir(directory, 0o755)
        files.write_atomic(f"{directory}/canary", canary.encode(), mode=0o644)
        yield canary, f"{directory}/canary"
    finally:
        files.remove_tree(directory)


def _held(record: registry.Record, plan: plans.Plan, home: str) -> dict[str, list[str]]:
    """What the sandbox must not write, and not read, of its workspace, as far as it was there when it started."""
    found = Protection(workspace=record.workspace)
    settings = view.Settings(plan)
    if record.launched:  # else it has a workspace of its own, of which nothing is held
        with suppress(WorkspaceError):  # a protected name has become a link: nothing is mounted upon one
            found = scan.scan(
                record.workspace,
                home=home,
                protected=settings.texts("protect"),
                unmask=settings.texts("unmask"),
            )
    began = _began(record)
    names = [f"{record.workspace}/{name}" for name in protect.PLACEHOLDERS] if record.launched else []
    repository = f"{record.workspace}/.git"
    if repository in names and os.path.lexists(f"{repository}/HEAD"):  # which is written, but for parts of it
        names.remove(repository)
    there = [path for path in found.read_only if path in record.nested]
    masked = [path for path in found.masked_files if _is_older(path, began)]
    held = dict.fromkeys((*there, *(path for path in names if os.path.lexists(path))))
    return {"planted": list(held)[:_SHOWN], "masked": masked[:_SHOWN]}


def _is_older(path: str, moment: float) -> bool:
    try:
        return os.stat(path).st_ctime < moment
    except OSError:
        return False  # it has just been removed


def _began(record: registry.Record) -> float:
    """When its session was started, in seconds since 1970 (proc(5): clock ticks after boot)."""
    since_boot = float((files.read_text("/proc/uptime") or "0").split()[0])
    return time.time() - since_boot + record.session.started / os.sysconf("SC_CLK_TCK")
