"""Decide whether a service is ready, from what the engine says and what a connection showed.

Rule 1: no I/O. Nothing is ready by absence: a container that is not seen to run, and to answer, is waited for.
Rule 2: what cannot get better is a failure at once, not at the end of the wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from cloister.policy.service import Service
from cloister.services.inspected import Container


class Probe(Enum):
    """What became of a connection. CLOSED: it was taken, and ended at once, as an engine's own proxy does."""

    OPEN = "it takes connections"
    CLOSED = "the connection ends at once"
    REFUSED = "nothing listens"
    UNREACHABLE = "it cannot be reached from this machine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """It may be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Not yet; why, for the error if it never is."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """It will not be."""

    reason: str


Verdict = Ready | Waiting | Failed


def judge(
    service: Service, container: Container | None, probes: Mapping[int, Probe], command_code: int | None
) -> Verdict:
    """`probes` by port; `command_code` of its own check's command, None if that has not been run."""
    if container is None:
        return Failed(reason="its container is gone")
    if not container.runs:
        if container.status in ("exited", "dead", "stopped"):
            return Failed(reason=f"its container has ended with exit code {container.exit_code}")
        return Waiting(reason=f"its container is {container.status or 'not there yet'}")
    if service.health == "image" and container.health:
        if container.health == "unhealthy":
            return Failed(reason="its image's own check says that it is unhealthy")
        if container.health != "healthy":
            return Waiting(reason=f"its image's own check says: {container.health}")
    if service.health == "command" and command_code != 0:
        if command_code in (126, 127):
            return Failed(reason=f'its check "{service.health_command[0]}" cannot be run in the container')
        said = "has not been run" if command_code is None else f"ends with exit code {command_code}"
        return Waiting(reason=f'its check "{service.health_command[0]}" {said}')
    for port in service.ports:
        probe = probes.get(port, Probe.REFUSED)
        if probe is not Probe.OPEN:
            return Waiting(reason=f"port {port}: {probe.value}")
    return Ready()
