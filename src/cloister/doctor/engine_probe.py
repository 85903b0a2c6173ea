"""Collect what `doctor/engines.py` judges: ask a container engine, as a start asks it.

Rule 1: looks only: nothing is pulled, built, started or kept.
Rule 2: whatever goes wrong is a fact, never an exception.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cloister.doctor.engines import EngineFacts
from cloister.engines import client as clients
from cloister.errors import CloisterError
from cloister.images import build, layer
from cloister.images import engine as builders
from cloister.runtimes import engine as engines
from cloister.runtimes import oci_failures


def look(name: str, environ: Mapping[str, str], *, untrusted: Sequence[str]) -> EngineFacts:
    """Ask the engine of that name. `untrusted`: directories that a sandbox can write."""
    client = clients.find(name, environ, untrusted=untrusted)
    if client is None:
        return EngineFacts(name=name, remedy=oci_failures.missing(name).resolution)
    try:
        found = engines.look(name, client.program, client.environment)
        states = _images(name, environ, untrusted)
    except (CloisterError, OSError) as error:
        return _failed(name, client.program, error)
    return EngineFacts(
        name=name,
        program=client.program,
        version=str(found["version"]),
        rootless=bool(found["rootless"]),
        local=bool(found["local"]),
        shares=bool(found.get("shares")),
        limits=bool(found["limits"]),
        run_root=str(found.get("run_root", "")),
        images=tuple(image for image, state in states.items() if state is not build.State.MISSING),
        outdated=tuple(image for image, state in states.items() if state is build.State.OUTDATED),
    )


def _images(name: str, environ: Mapping[str, str], untrusted: Sequence[str]) -> dict[str, build.State]:
    engine = builders.find(name, environ, untrusted=untrusted)
    return {image: build.state(engine, image) for image in layer.names()}


def _failed(name: str, program: str, error: CloisterError | OSError) -> EngineFacts:
    if not isinstance(error, CloisterError):
        return EngineFacts(
            name=name,
            program=program,
            error=f"it cannot be asked ({error})",
            remedy=f"see what this says: {name} info",
        )
    last = (error.details or "").strip().splitlines()[-1:]
    said = f" ({last[0].rstrip('.')})" if last else ""
    return EngineFacts(
        name=name, program=program, error=error.brief + said, remedy=error.resolution or f"{name} info"
    )
