"""Who uses a repository's services: a file for each live sandbox, beside those of other repositories.

    STATE/services/REPOSITORY/     0700
        .lock                      held while services are started or stopped
        users/SANDBOX              the pid and start time of its session
        engine                     which engine runs them: "docker" or "podman"
        held                       `cloister services start` was typed: they run without a sandbox

Rule 1: a sandbox whose session is dead uses nothing, whatever its file says.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from cloister.sandbox import registry
from cloister.sandbox.registry import Process
from cloister.system import files
from cloister.values import dataclass

DIRECTORY = "services"


@dataclass(frozen=True, slots=True, kw_only=True)
class Users:
    """Those of one repository."""

    directory: str

    @classmethod
    def of(cls, state_directory: str, repository: str) -> Users:
        return cls(directory=os.path.join(state_directory, DIRECTORY, repository))

    @property
    def repository(self) -> str:
        return os.path.basename(self.directory)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold all others off."""
        files.make_private_directory(os.path.join(self.directory, "users"))
        with files.locked(os.path.join(self.directory, ".lock")):
            yield

    def add(self, sandbox_id: str, session: Process) -> None:
        files.write_atomic(self._path(sandbox_id), f"{session.pid} {session.started}".encode())

    def remove(self, sandbox_id: str) -> None:
        """Idempotent."""
        files.remove(self._path(sandbox_id))

    def names(self, sandbox_id: str) -> bool:
        """Whether that sandbox is among them."""
        return os.path.exists(self._path(sandbox_id))

    def live(self) -> tuple[str, ...]:
        """The sandboxes that use them; files of dead ones are removed. The lock is held."""
        try:
            names = sorted(os.listdir(os.path.join(self.directory, "users")))
        except FileNotFoundError:
            return ()
        found = []
        for name in names:
            if self._lives(name):
                found.append(name)
            else:
                self.remove(name)
        return tuple(found)

    def hold(self) -> None:
        """They run until they are stopped by hand."""
        files.write_atomic(os.path.join(self.directory, "held"), b"")

    def let_go(self) -> None:
        files.remove(os.path.join(self.directory, "held"))

    @property
    def held(self) -> bool:
        return os.path.exists(os.path.join(self.directory, "held"))

    @property
    def engine(self) -> str | None:
        """The engine that runs them, as far as is known."""
        return files.read_text(os.path.join(self.directory, "engine"))

    def use_engine(self, name: str) -> None:
        files.write_atomic(os.path.join(self.directory, "engine"), name.encode())

    def _lives(self, sandbox_id: str) -> bool:
        text = files.read_text(self._path(sandbox_id)) or ""
        pid, _, started = text.partition(" ")
        if not (pid.isdecimal() and started.isdecimal()):
            return False
        return registry.alive(Process(pid=int(pid), started=int(started)))

    def _path(self, sandbox_id: str) -> str:
        return os.path.join(self.directory, "users", sandbox_id)


def all_of(state_directory: str) -> list[Users]:
    """Those of every repository that has ever had services."""
    try:
        names = sorted(os.listdir(os.path.join(state_directory, DIRECTORY)))
    except FileNotFoundError:
        return []
    return [Users.of(state_directory, name) for name in names]
