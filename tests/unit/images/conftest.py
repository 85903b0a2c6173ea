from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

FAKE = Path(__file__).parents[2] / "fakes" / "container_engine.py"


@dataclass(frozen=True, kw_only=True)
class FakeEngine:
    """The directory of a fake `docker`: what it knows and what it was told."""

    directory: Path

    def calls(self, *start: str) -> list[dict[str, Any]]:
        path = self.directory / "calls"
        found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [call for call in found if tuple(call["argv"][: len(start)]) == start]

    def knows(self, reference: str, identity: str, *digests: str) -> None:
        path = self.directory / "images" / reference.replace("/", "_")
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"Id": identity, "RepoDigests": digests}))

    def fails(self, *command: str, saying: str) -> None:
        (self.directory / ("fail-" + "-".join(command))).write_text(saying)


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """`docker`, alone on PATH."""
    directory = tmp_path / "engine"
    directory.mkdir()
    program = directory / "docker"
    program.write_text(f"#!{sys.executable}\n{FAKE.read_text()}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory))
    for name in ("http_proxy", "https_proxy", "DOCKER_HOST"):
        monkeypatch.delenv(name, raising=False)
    return FakeEngine(directory=directory)
