"""`kill -9` of every part in turn: the sandbox ends or is cleaned up by the next command, and nothing is left (AV-3)."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable

import pytest

from tests.contract.conftest import World


def record(world: World) -> dict[str, object]:
    (path,) = (world.cloister.state / "runs").glob("*.json")
    found: dict[str, object] = json.loads(path.read_text())
    return found


def up(world: World) -> dict[str, object]:
    done = world.cloister("up", timeout_s=120)
    assert done.code == 0, done
    return record(world)


def eventually(true: Callable[[], bool], deadline_s: float = 60.0) -> None:
    end = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < end


def nothing_is_left(world: World) -> None:
    assert world.containers() == []
    assert world.volumes() == []
    assert list((world.cloister.state / "runs").iterdir()) == []
    assert list(world.cloister.project.iterdir()) == []


def test_the_supervisor(world: World) -> None:
    session = up(world)["session"]
    assert isinstance(session, list)
    os.kill(session[0], signal.SIGKILL)
    again = world.cloister("up", timeout_s=120)
    assert again.code == 0, again
    assert "had been killed" in again.err
    assert world.sh("exit 3").code == 3
    assert world.cloister("stop", timeout_s=120).code == 0
    nothing_is_left(world)


def test_the_gateway(world: World) -> None:
    """No gateway, no sandbox; and nothing leaves between."""
    others = up(world)["others"]
    assert isinstance(others, list)
    os.kill(others[0][0], signal.SIGKILL)
    eventually(lambda: not list((world.cloister.state / "runs").glob("*.json")))
    nothing_is_left(world)
    (log,) = (world.cloister.state / "sandboxes").glob("*.log")
    eventually(lambda: "the gateway ended" in log.read_text())  # said once everything is gone


@pytest.mark.parametrize("part", ["holder", "agent"])
def test_a_container(world: World, part: str) -> None:
    if world.engine is None:
        init = up(world)["init"]
        assert isinstance(init, list)
        os.kill(init[0], signal.SIGKILL)
    else:
        up(world)
        (container,) = [name for name in world.containers() if name.endswith(f"-{part}")]
        world.engine("kill", "--signal=KILL", container)
    eventually(lambda: not list((world.cloister.state / "runs").glob("*.json")))
    nothing_is_left(world)
    gone = world.sh("true")
    assert gone.code != 0
    assert "cloister up" in gone.err


def test_a_start_that_is_killed(world: World) -> None:
    """At whatever point: the next command removes what there is."""
    for moment in (0.2, 0.6, 1.2):
        process = world.cloister.start("run", "--", "/bin/cat")
        end = time.monotonic() + moment
        while time.monotonic() < end and process.poll() is None:
            os.sched_yield()
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    done = world.cloister("run", "--", "/bin/true", timeout_s=120)
    assert done.code == 0, done
    eventually(lambda: world.containers() == [])
    nothing_is_left(world)
