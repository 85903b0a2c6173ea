"""`cloister init`: a starter that is valid, fits the project, and overwrites nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cloister import cli
from cloister.config.compile import compile_plan
from cloister.config.preset import names
from cloister.config.settings import Overrides
from cloister.config.starter import found_languages, starter

MARKERS = [
    "package.json",
    "pyproject.toml",
    "Cargo.toml",
    "go.mod",
    "mix.exs",
    "Gemfile",
    "pom.xml",
    "composer.json",
]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "project"
    directory.mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.chdir(directory)
    return directory


def test_it_writes_a_starter_and_says_what_next(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "package.json").touch()
    assert cli.dispatch(["init"]) == 0
    assert capsys.readouterr().out == (
        f"Wrote {project}/cloister.toml (found: Node).\nRead and edit it, then run: cloister trust\n"
    )
    assert 'presets = ["npm"]' in (project / "cloister.toml").read_text()


def test_it_never_overwrites(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = project / "cloister.toml"
    file.write_text("# mine\n")
    assert cli.dispatch(["init"]) == 125
    assert "exists already, and is left as it is" in capsys.readouterr().err
    assert file.read_text() == "# mine\n"


def test_it_does_not_write_through_a_link(project: Path, tmp_path: Path) -> None:
    (project / "cloister.toml").symlink_to(tmp_path / "elsewhere")
    assert cli.dispatch(["init"]) == 125
    assert not (tmp_path / "elsewhere").exists()


def test_the_home_is_no_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path / "home")
    assert cli.dispatch(["init"]) == 125
    assert not (tmp_path / "home/cloister.toml").exists()


@pytest.mark.parametrize("markers", [[], *([marker] for marker in MARKERS), MARKERS], ids=str)
def test_every_starter_is_valid(markers: list[str]) -> None:
    languages = found_languages(markers)
    assert bool(languages) is bool(markers)
    assert {preset for language in languages for preset in language.presets} <= set(names())
    text = starter(languages)
    plan = compile_plan(user=("", None), project=("c", text), overrides=Overrides(), home="/h")
    assert plan["profile"] == "agent"


def test_what_is_commented_out_is_valid_too() -> None:
    """Whoever takes the "# " away gets a valid file: keys, and items of lists."""
    example = re.compile(r'(?m)^(\s*)# (?=\w+ = |"[^"]+",$|\[{1,2}\w+\]{1,2}$)')
    text = example.sub(r"\1", starter(()))
    assert '\n    "api.example.com",' in text
    assert text.count("\n[[credential]]\n") == 2 and "\n[git]\n" in text
    assert "\nunmask = " in text
    compile_plan(user=("", None), project=("c", text), overrides=Overrides(), home="/h")
