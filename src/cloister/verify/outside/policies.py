"""Policies that are empty, broken or half-written (NET-9), and credentials that dispute a place (ID-12).

Both are judged by the loader that every start uses, so the host tries them: with that loader, and with commands.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from cloister.config.directories import Project
from cloister.errors import ConfigurationError
from cloister.sandbox import registry
from cloister.system import files
from cloister.verify.inside.talk import Probe, RefusedError
from cloister.verify.outside import beside as origins
from cloister.verify.outside.beside import NAME, OTHER, Beside
from cloister.verify.outside.names import succeeded
from cloister.verify.outside.world import World

_FAULTS: Mapping[str, bytes] = {
    "cut within a text": b'[network]\nallow = ["api.exam',
    "cut within a table's name": b"[network]\nallow = []\n[netw",
    "cut within a key": b"[network]\nall",
    "an unknown key": b'[network]\nalow = ["api.example.com"]\n',
    "a pattern for everything": b'[network]\nallow = ["*"]\n',
    "a pattern for a top-level domain": b'[network]\nallow = ["*.com"]\n',
    "a text where a list belongs": b'[network]\nallow = "api.example.com"\n',
    "a key twice": b"[network]\nallow = []\nallow = []\n",
    "NUL": b"[network]\nallow = []\0\n",
    "what is no UTF-8": b'[network]\nallow = ["\xff.example.com"]\n',
}
_CREDENTIAL = """
[[credential]]
name = "{name}"
source = "env:CLOISTER_VERIFY_{name}"
hosts = ["{host}"]
inject = "{inject}"
env = []
"""
_Place = tuple[str, str]  # a host, and where in a request
_AGREED: Mapping[str, tuple[_Place, _Place]] = {
    "one for each of two hosts": (("one.example.com", "bearer"), ("two.example.com", "bearer")),
    "one for each of two places": (("one.example.com", "bearer"), ("one.example.com", "query:key")),
}
_DISPUTED: Mapping[str, tuple[_Place, _Place]] = {
    "for one header": (("one.example.com", "bearer"), ("one.example.com", "bearer")),
    "for one header, in other words": (
        ("one.example.com", "bearer"),
        ("one.example.com", "header:authorization"),
    ),
    "for a pattern and a name of it": (("*.example.com", "bearer"), ("one.example.com", "basic:user")),
    "for one parameter": (("one.example.com", "query:key"), ("one.example.com", "query:key")),
}


def odd_policies(found: Probe, world: World) -> None:
    with origins.made() as beside:
        project = world.project("policies")
        good = origins.configured(world, beside)
        origins.write(world, good)
        done = world.cloister("run", "-C", project.workspace, "--", *origins.asking(NAME, "/control-NET-9"))
        found.control("a policy that grants a name", succeeded, done.code == 0, done.said)
        _damaged_plan(found, world, project, beside)
        for what, text in _FAULTS.items():
            origins.write(world, text)
            found.attack(f"load a configuration that holds {what}", loaded, world, project)
        found.attack("start with the last of them", _starts, world, project)
        origins.write(world, origins.configured(world, beside, allow=()))
        found.attack("reach a name with an empty policy", _reached, world, project, beside)
        _changed(found, world, project, beside, good)


def loaded(world: World, project: Project) -> str:
    """As every start loads it. RefusedError with the reason if it is refused."""
    from cloister.config.compile import (
        Overrides,
        compile_project,
    )  # the validator: 0.2 s, for these two alone

    try:
        compile_project(project.workspace, world.environ, Overrides())
    except ConfigurationError as error:
        raise RefusedError(error.brief.rpartition("/")[2]) from None
    return "it was loaded"


def _starts(world: World, project: Project) -> str:
    done = world.cloister("run", "-C", project.workspace, "--", "true")
    if done.code == 0 or "Traceback" in done.err:
        return done.said
    raise RefusedError(done.said)


def _reached(world: World, project: Project, beside: Beside) -> str:
    path = "/attack-NET-9-empty"
    done = world.cloister("run", "-C", project.workspace, "--", *origins.asking(NAME, path))
    if done.code == 0 or path.encode() in beside.seen():
        return done.said
    raise RefusedError(done.said)


def _damaged_plan(found: Probe, world: World, project: Project, beside: Beside) -> None:
    """The compiled policy, as it lies in the state: a gateway that cannot understand it serves nobody."""
    text = files.read_text(project.plan)
    found.control("the compiled policy is kept", succeeded, text is not None, project.plan)
    plan = json.loads(text or "{}")
    damaged = {"no policy": None, "half a policy": {"grants": (plan.get("policy") or {}).get("grants")}}
    for what, policy in damaged.items():
        files.write_atomic(project.plan, json.dumps({**plan, "policy": policy}).encode())
        found.attack(f"reach a name with a compiled plan of {what}", _reached, world, project, beside)
    os.unlink(project.plan)


def _changed(found: Probe, world: World, project: Project, beside: Beside, good: str) -> None:
    """What is written while a sandbox lives counts from the next start on: the old policy holds until then."""
    origins.write(world, good)
    up = world.cloister("up", "-C", project.workspace)
    found.control("a sandbox runs", succeeded, any(registry.records(project.runs)), up.said)

    def asked(name: str, path: str) -> str:
        done = world.cloister("exec", "-C", project.workspace, "--", *origins.asking(name, path))
        if done.code:
            raise RefusedError(done.said)
        return "answered"

    origins.write(world, origins.configured(world, beside, allow=(NAME, OTHER)))
    found.attack("what a changed file grants, in a sandbox that runs", asked, OTHER, "/attack-NET-9-changed")
    origins.write(world, _FAULTS["cut within a text"])
    found.control(
        "a sandbox that runs keeps its policy over a broken file", asked, NAME, "/control-NET-9-kept"
    )
    found.attack("what its policy never granted", asked, OTHER, "/attack-NET-9-broken")
    origins.write(world, good)
    world.cloister("stop", "-C", project.workspace)


def disputed_places(found: Probe, world: World) -> None:
    project = world.project("credentials")

    def with_two(places: tuple[_Place, _Place]) -> str:
        credentials = zip(("A", "B"), places, strict=True)
        text = [
            _CREDENTIAL.format(name=name, host=host, inject=inject) for name, (host, inject) in credentials
        ]
        origins.write(world, "".join(text))
        return loaded(world, project)

    for what, places in _AGREED.items():
        found.control(f"two credentials, {what}", with_two, places)
    for what, places in _DISPUTED.items():
        found.attack(f"two credentials {what}", with_two, places)
