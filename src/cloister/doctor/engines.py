"""Judge a container engine: whether sandboxes can run in it, and what to type where they cannot.

Rule 1: no I/O. `EngineFacts` (collected by `doctor/engine_probe.py`) in, a `Check` out.
Rule 2: an engine is never a "fail": `cloister run` works without one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cloister.doctor.result import Check, none, ok, warn

# What podman starts when a container has ended gets the run root as an option, and takes none that is longer
# (podman issue 22272); podman itself has it from its configuration, of any length.
RUN_ROOT_CHARACTERS = 50
_EMBEDDED = "or do without containers: --runtime embedded"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What was found of an engine. Without `program` it is not installed; with an `error` it does not answer.

    `local`: it runs on this kernel; if not, `shares`: in a machine of this host. `limits`: its control groups hold
    memory, CPUs and processes. `run_root`: podman's directory of what runs. `images`: those of ours that it has;
    `outdated`: of these, the ones that this cloister would build otherwise.
    """

    name: str
    program: str = ""
    error: str = ""
    remedy: str = ""  # against the error, or how to install it
    version: str = ""
    rootless: bool = False
    local: bool = True
    shares: bool = False
    limits: bool = True
    run_root: str = ""
    images: tuple[str, ...] = ()
    outdated: tuple[str, ...] = ()


def check(facts: EngineFacts) -> Check:
    """Judge one."""
    name = facts.name
    if not facts.program:
        return none(name, "not installed; the embedded runtime does not need it.", facts.remedy)
    if facts.error:
        return warn(name, f"{facts.program} is here, but {facts.error}.", facts.remedy)
    kind = "rootless" if facts.rootless else "as root"
    answers = f"{name} {facts.version or '(of an unknown version)'}, {kind}, answers"
    if not facts.local and not facts.shares and name != "docker":
        return warn(
            name,
            f"{answers}, in a virtual machine or on another one, where only Docker is used.",
            f"use an engine of this host, {_EMBEDDED}",
        )
    if not facts.local and not facts.shares:
        return warn(
            name,
            f"{answers}, on another machine, which sees no files of this host.",
            'give sandboxes there a workspace of their own: [sandbox] workspace = "volume"',
        )
    if name == "docker" and facts.rootless:
        return warn(
            name,
            f"{answers}, and would give every file of yours to its containers' root.",
            "use Podman: --runtime podman",
        )
    if len(facts.run_root) > RUN_ROOT_CHARACTERS:
        return warn(
            name,
            f"{answers}, but does not clean up after a container, and waits 20 s for that at the end of each sandbox: "
            f"its run root {facts.run_root!r} has more than {RUN_ROOT_CHARACTERS} characters.",
            "give it a shorter one: export XDG_RUNTIME_DIR=/run/user/$(id -u), or runroot in its storage.conf",
        )
    if not facts.images:
        return warn(
            name,
            f"{answers}; it has none of our images.",
            f"# Any other image works too; the names of ours: cloister image list\n"
            f"cloister image build base --runtime {name}",
        )
    held = f"{answers}; images of ours: {', '.join(facts.images)}"
    if facts.outdated:
        return warn(
            name,
            f"{held}; outdated: {', '.join(facts.outdated)}.",
            f"cloister image build {' '.join(facts.outdated)} --runtime {name}",
        )
    if not facts.limits:
        return warn(
            name,
            f"{held}; memory and processes are limited by rlimits, per process; CPU is not.",
            "delegate the controllers to users: sudo systemctl edit user@.service   "
            "([Service] Delegate=cpu cpuset io memory pids), then log in again",
        )
    return ok(name, f"{held}.")


def usable(engines: Iterable[EngineFacts]) -> tuple[str, ...]:
    """The names of those in which sandboxes run, with an image of ours or another."""
    return tuple(
        one.name
        for one in engines
        if one.program
        and not one.error
        and (one.local or one.name == "docker")
        and not (one.name == "docker" and one.rootless)
    )
