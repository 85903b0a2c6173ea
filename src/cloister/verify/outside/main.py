"""Run one of the host's probes, in a process of its own, and tell of it as inside/main.py does."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from cloister.errors import CloisterError
from cloister.verify.inside.talk import Probe
from cloister.verify.outside import (
    arguments,
    crashes,
    gateway,
    limits,
    names,
    planting,
    policies,
    repositories,
)
from cloister.verify.outside.turns import Turns
from cloister.verify.outside.world import World

AT_ONCE, AT_ONCE_WITH_ENGINE = 4, 2  # sandboxes are made by as many probes at a time

PROBES: dict[str, Callable[[Probe, World], None]] = {
    "AV-3": crashes.kills,
    "CFG-2": arguments.smuggling,
    "CFG-3": names.odd_names,
    "FS-1": planting.planted,
    "FS-5": repositories.git_of_the_host,
    "FS-7": limits.fork_bomb,
    "ID-12": policies.disputed_places,
    "K-6": limits.memory_and_cpu,
    "NET-8": gateway.hung_or_killed,
    "NET-9": policies.odd_policies,
}


def run(name: str, world: World, turns: Turns) -> int:
    """Try it in its turn; the result goes to standard output."""
    found = Probe()
    if not turns.take():
        return 0
    try:
        PROBES[name](found, world)
    except (CloisterError, OSError, ValueError) as error:
        found.controls.append(
            {"what": "the probe ran", "succeeded": False, "got": f"{type(error).__name__}: {error}"[:400]}
        )
    finally:
        turns.give()
    line = {"id": name, "attacks": found.attacks, "controls": found.controls, "notes": found.notes}
    _say({**line, "missing": found.missing})
    _say({"done": True})
    return 0


def _say(line: dict[str, object]) -> None:
    data = memoryview(json.dumps(line).encode() + b"\n")
    while data:
        data = data[os.write(1, data) :]
