"""Which engine on another machine has the files of a workspace or a home, and in which volume.

Rule 1: written before the volume is made, and again once it is `whole`: one that is not is filled anew.
Rule 2: the volume's name cannot be guessed from the project: users of several machines may share an engine.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass

from cloister.system import files


@dataclass(frozen=True, slots=True, kw_only=True)
class Away:
    """A volume, and how its engine is reached: by the same client, and with the environment that it had."""

    engine: str
    program: str
    environment: tuple[tuple[str, str], ...]
    endpoint: str
    volume: str
    owner: tuple[int, int]  # uid and gid
    whole: bool = False


def load(path: str) -> Away | None:
    """What is written at `path`; None if nothing is, or nothing that can be understood."""
    try:
        data = json.loads(files.read(path) or b"null")
        if data is None:
            return None
        uid, gid = data["owner"]
        return Away(
            **{**data, "environment": tuple(dict(data["environment"]).items()), "owner": (int(uid), int(gid))}
        )
    except (ValueError, KeyError, TypeError):
        return None


def store(path: str, away: Away) -> None:
    """Write it down, or replace it."""
    files.make_private_directory(os.path.dirname(path))
    data = {**asdict(away), "environment": dict(away.environment)}
    files.write_atomic(path, json.dumps(data).encode())


def forget(path: str) -> None:
    """The files are here again, or nowhere. Idempotent."""
    files.remove(path)
