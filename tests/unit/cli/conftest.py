from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.images.conftest import docker  # noqa: F401  # a fixture


@pytest.fixture
def enter_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes a home with this configuration of the user's, and an empty project, which becomes the current directory."""

    def enter(config: str) -> Path:
        path = tmp_path / "home/.config/cloister/config.toml"
        path.parent.mkdir(parents=True)
        path.write_text(config)
        path.chmod(0o600)
        directory = tmp_path / "project"
        directory.mkdir()
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
        monkeypatch.delenv("XDG_STATE_HOME", raising=False)
        monkeypatch.chdir(directory)
        return directory

    return enter
