"""Where a sample's sandbox has its project."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from cloister.config import directories, trust
from cloister.inspect_sandbox import place
from cloister.sandbox import catalogue


@pytest.fixture(autouse=True)
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "theirs"))


def keep(workspace: str) -> None:
    project = directories.project(
        workspace, {"HOME": "/", "XDG_STATE_HOME": str(Path(tempfile.tempdir or "").parent / "state")}
    )
    Path(project.runs).mkdir(parents=True)
    catalogue.store(project, catalogue.Kept(name="main", workspace=workspace, created=0.0))


def test_made_and_removed(tmp_path: Path) -> None:
    where = place.make("[sandbox]\n", {"XDG_CONFIG_HOME": str(tmp_path / "theirs")})
    assert trust.texts(where.project()) == ("[sandbox]\n", "[sandbox]\n")
    assert not where.lives()
    keep(where.workspace)
    assert list(place.left()) == [where]
    where.remove()
    where.remove()
    assert list((tmp_path / "tmp").iterdir()) == []
    assert list((tmp_path / "state/cloister/projects").iterdir()) == []


def test_podmans_own_configuration_stays(tmp_path: Path) -> None:
    (tmp_path / "theirs/containers").mkdir(parents=True)
    (tmp_path / "theirs/cloister").mkdir()
    where = place.make(None, {"XDG_CONFIG_HOME": str(tmp_path / "theirs")})
    config = Path(where.environment()["XDG_CONFIG_HOME"])
    assert [path.name for path in config.iterdir()] == ["containers"]
    where.remove()
    assert (tmp_path / "theirs/containers").is_dir()


def test_a_project_of_the_users_is_none_of_ours(tmp_path: Path) -> None:
    for path in (tmp_path / "tmp/mine/project", tmp_path / "elsewhere/cloister-inspect-mine/project"):
        path.mkdir(parents=True)
        keep(str(path))
    assert list(place.left()) == []
