"""Odd names of projects and sandboxes, through the command that takes them (CFG-3)."""

from __future__ import annotations

import os
import re

from cloister.verify.inside.talk import Probe, RefusedError
from cloister.verify.outside.world import World

_SANDBOXES = (
    "../x", "..", "a/../../x", "-rf", "--all", "", ".hidden", "x\n", "x y", "x;id", "$(id)", "\u202egpj", "ünï", "X",
    "a" * 33, "a" * 5000,
)  # fmt: skip
_PROJECTS = ("-rf", "--privileged", "..a", "a b,c\"d'e:f=g;h", "$(id) %s * ünï \U0001f512", "n" * 255)
_CONTROL_CHARACTER = "a\nb"
_SAFE = re.compile(r"[a-z0-9][a-z0-9._-]{0,52}")
_USAGE = 2


def odd_names(found: Probe, world: World) -> None:
    """Each is refused, or is a name like any other; nothing is made but below the project's own state."""
    project = world.project("names")
    ran = world.cloister("run", "-C", project.workspace, "--", "true")
    found.control("a project with a plain name", succeeded, ran.code == 0, ran.said)
    before = _listing(world)
    for name in (*_SANDBOXES, f"{world.base}/x"):
        found.attack(f"a sandbox named {name[:40]!r}", _sandbox, world, project.workspace, name)
    found.attack("something was made for one of them", _new, before, _listing(world))
    for name in _PROJECTS:
        found.attack(f"a project named {name[:40]!r}", _project, world, name)
    found.attack(f"a project named {_CONTROL_CHARACTER!r}", _refused_project, world)


def succeeded(it_did: bool, got: str) -> str:
    if not it_did:
        raise RefusedError(got)
    return got


def _new(before: set[str], after: set[str]) -> str:
    if before == after:
        raise RefusedError("nothing was")
    return ", ".join(sorted(after ^ before))


def _sandbox(world: World, workspace: str, name: str) -> str:
    """RefusedError if it is refused as wrong usage; the first one by the commands that remove and enter, too."""
    others = (("exec",), ("rm", "--force", "--volumes")) if name == _SANDBOXES[0] else ()
    for command in (("up",), *others):
        end = ("--", "true") if command == ("exec",) else ()
        done = world.cloister(*command, "-C", workspace, f"--name={name}", *end)
        if done.code != _USAGE or "Traceback" in done.err:
            return f"cloister {command[0]}: {done.said}"
    raise RefusedError("wrong usage")


def _project(world: World, name: str) -> str:
    """RefusedError if its sandbox sees that directory as its workspace, and its state has a safe name."""
    workspace = world.project(name).workspace
    done = world.cloister("run", "--", "pwd", directory=workspace)
    if done.code or done.out.rstrip("\n") != workspace:
        return done.said
    unsafe = [one for one in os.listdir(f"{world.state}/projects") if not _SAFE.fullmatch(one)]
    if unsafe:
        return f"a state named {unsafe[0]!r}"
    raise RefusedError("a workspace like any other")


def _refused_project(world: World) -> str:
    project = world.project(_CONTROL_CHARACTER)
    done = world.cloister("run", "--", "pwd", directory=project.workspace)
    if done.code and "control character" in done.err and not os.path.exists(project.state):
        raise RefusedError(done.said)
    return done.said


def _listing(world: World) -> set[str]:
    """What lies in the state, but for logs, and beside it: paths below the base."""
    found = set(os.listdir(world.base))
    for directory, names, files in os.walk(world.state):
        place = os.path.relpath(directory, world.base)
        found |= {f"{place}/{name}" for name in (*names, *files) if not place.endswith("/audit")}
    return found
