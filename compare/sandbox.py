"""What a peer is to the comparison: something that makes a sandbox, with the configuration that its users are told to
use, and says how to run a program in it.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cloister.verify.place import Place
from compare.engine import Engine
from compare.laboratory import UID, Laboratory

SECRET_VARIABLE = "COMPARE_TOKEN"  # where the user has the credential, on the host
PIDS = 512  # the limit of processes, where a peer has one
MEMORY_BYTES = 4 << 30
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class UnavailableError(Exception):
    """A peer cannot be run here; the table says why."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is at hand: the laboratory, the place (workspace and canaries), a Docker engine or why there is none."""

    laboratory: Laboratory
    place: Place
    engine: Engine | str

    def docker(self) -> Engine:
        if isinstance(self.engine, str):
            raise UnavailableError(self.engine)
        return self.engine

    def environment(self) -> dict[str, str]:
        """Of the ordinary user, who has the credential in a variable, and trusts the laboratory's authority."""
        ca = str(self.laboratory.ca_file)
        return {
            "HOME": str(self.laboratory.home),
            "USER": "compare",
            "PATH": SYSTEM_PATH,
            "LANG": "C.UTF-8",
            "SSL_CERT_FILE": ca,
            "NODE_EXTRA_CA_CERTS": ca,
            SECRET_VARIABLE: self.place.secret,
            **({} if isinstance(self.engine, str) else self.engine.environment),
        }


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """One that is ready. `first` and `later` are argv that a program's own is appended to (`quoted`: as one word of a
    shell's); they are run on the host by the ordinary user, with `environment`."""

    first: Sequence[str]
    environment: Mapping[str, str]
    workspace: str  # as it is called inside
    later: Sequence[str] = ()  # () if nothing enters later
    quoted: bool = False
    proxy: str = ""  # see way.py
    sends: bool = True  # the client itself puts the credential into requests
    pids: int = 0
    log: Callable[[], str] | None = None  # what was allowed and refused, as it was written down


class Peer(Protocol):
    """A module of peers/."""

    def version(self) -> str:
        """Installs it, if need be. UnavailableError if it cannot be had."""
        ...

    def made(self, task: Task) -> AbstractContextManager[Sandbox]: ...


def reachable(program: Path) -> None:
    """UnavailableError if the ordinary user who runs the peers cannot reach it."""
    for one in (program, *program.parents):
        if not one.stat().st_mode & stat.S_IXOTH:
            raise UnavailableError(
                f"an ordinary user cannot reach {program}: {one} is closed; clone it elsewhere"
            )


def as_user(argv: Sequence[str]) -> list[str]:
    return ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--", *argv]
