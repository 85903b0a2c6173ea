"""The stage: what the audited sandbox gets and does not get, and that it goes."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from cloister.config import directories
from cloister.config.compile import compile_plan
from cloister.config.settings import Overrides
from cloister.depaudit import canaries, stage

USER = """
[sandbox]
env = { TOKEN = "sesame" }
pass_env = ["SECRET"]
unmask = [".env"]
[[credential]]
name = "api"
source = "env:REAL"
hosts = ["api.example.com"]
inject = "bearer"
env = "API_TOKEN"
[network]
passthrough = ["pypi.org"]
allow = ["pypi.org"]
[packages]
minimum_age_days = 7
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "home/project").mkdir(parents=True)
    (tmp_path / "home/project/a.txt").write_text("a")
    return {"HOME": str(tmp_path / "home"), "XDG_STATE_HOME": str(tmp_path / "state")}


def test_the_plan_holds_canaries_and_nothing_of_the_users() -> None:
    planted = canaries.make(lambda: os.urandom(32))
    compiled = compile_plan(
        user=("/u.toml", USER),
        project=("/w/cloister.toml", None),
        overrides=Overrides(profile="registries", no_project_file=True),
        home="/h",
    )
    assert "sesame" in str(compiled)  # the control
    adapted = stage.adapted(compiled, planted, {"CI": "1"})
    text = str(adapted)
    assert "sesame" not in text
    assert "env:REAL" not in text
    assert adapted["sandbox"]["environment"]["CI"] == "1"  # type: ignore[index]
    assert adapted["sandbox"]["environment"]["GITHUB_TOKEN"].startswith("ghp_")  # type: ignore[index]
    assert adapted["packages"]["environment"] == {}  # type: ignore[index]
    grants = adapted["policy"]["grants"]  # type: ignore[index]
    assert grants
    assert all(grant["methods"] for grant in grants if grant["transport"] == "web")


def test_every_canary_is_new_and_in_its_file(environ: dict[str, str], tmp_path: Path) -> None:
    project = str(tmp_path / "home/project")
    seen: list[set[str]] = []
    for _ in range(2):
        planted = canaries.make(lambda: os.urandom(32))
        assert len({one.name for one in planted}) == len(planted)
        with stage.made(project, project, environ, planted) as made:
            for one in planted:
                if one.path:
                    path = Path(made.locate(one.path))
                    assert all(text in path.read_text() for text in one.texts)
                    assert path.stat().st_mode & 0o077 == 0
            assert (Path(made.project.workspace) / "a.txt").read_text() == "a"
        assert not os.path.exists(made.project.state)
        seen.append({text for one in planted for text in one.texts})
    assert not seen[0] & seen[1]


def test_an_abandoned_stage_goes_and_a_living_one_stays(environ: dict[str, str], tmp_path: Path) -> None:
    project = str(tmp_path / "home/project")
    dead = directories.throwaway(project, environ, "0" * 12)
    living = directories.throwaway(project, environ, "1" * 12)
    for one in (dead, living):
        os.makedirs(one.workspace)
        Path(one.state, stage.LOCK).touch()
    with open(f"{living.state}/{stage.LOCK}") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with stage.made(project, project, environ, ()):
            assert not os.path.exists(dead.state)
            assert os.path.exists(living.state)


def test_a_project_is_never_taken_for_a_stage(environ: dict[str, str], tmp_path: Path) -> None:
    project = str(tmp_path / "home/project")
    assert directories.throwaway(project, environ, "0" * 12).throwaway
    for name in (project, "/w/audits", "/audits/x"):
        assert not directories.project(name, environ).throwaway


def test_read_only_directories_are_removed_too(environ: dict[str, str], tmp_path: Path) -> None:
    project = str(tmp_path / "home/project")
    with stage.made(project, project, environ, ()) as made:
        inner = Path(made.project.home, "go/pkg/mod/x")
        inner.mkdir(parents=True)
        (inner / "f").write_text("")
        inner.chmod(0o555)
        inner.parent.chmod(0o000)
    assert not os.path.exists(made.project.state)
