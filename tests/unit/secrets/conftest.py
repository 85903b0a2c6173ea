"""Fake programs, first on PATH, and a context to fetch with."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cloister.secrets.source import Context, Value, fetch, parse
from cloister.system import proc


class World:
    """A home, a directory of fake programs, and the user's environment."""

    def __init__(self, directory: Path) -> None:
        self.home = directory / "home"
        self.programs = directory / "bin"
        self.home.mkdir()
        self.programs.mkdir()
        self.environ = {"HOME": str(self.home), "PATH": f"{self.programs}:{proc.PATH}"}

    def program(self, name: str, script: str, directory: Path | None = None) -> Path:
        """A fake program: a shell script that records its arguments in `<name>.argv`."""
        path = (directory or self.programs) / name
        path.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{self.home}/{name}.argv"\n{script}\n')
        path.chmod(0o755)
        return path

    def argv(self, name: str) -> list[str]:
        """What the program was called with."""
        return (self.home / f"{name}.argv").read_text().splitlines()

    def secret_file(self, name: str, content: bytes, mode: int = 0o600) -> Path:
        path = self.home / name
        path.write_bytes(content)
        path.chmod(mode)
        return path

    def context(self, **how: object) -> Context:
        fields: dict[str, object] = {"name": "thing", "environ": self.environ, "deadline_s": 10.0, **how}
        return Context(**fields)  # type: ignore[arg-type]

    def fetch(self, text: str, **how: object) -> Value:
        return fetch(parse(text), self.context(**how))

    def value(self, text: str, **how: object) -> bytes:
        return self.fetch(text, **how).secret.reveal()


@pytest.fixture
def world(tmp_path: Path) -> World:
    os.umask(0o022)
    return World(tmp_path)


Fetch = Callable[[str], bytes]
