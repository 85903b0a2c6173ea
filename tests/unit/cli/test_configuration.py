"""`init`, `trust`, `policy` and `why` in a project, as a person meets them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cloister.cli import dispatch

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    directory = tmp_path / "home/work"
    directory.mkdir(parents=True)
    monkeypatch.chdir(directory)
    return directory


def test_the_starter_file_can_be_adopted_and_counts(work: Path, capsys: Capture) -> None:
    (work / "Gemfile").touch()
    (work / "composer.json").touch()
    assert dispatch(["init"]) == 0
    assert "(found: Ruby, PHP)" in capsys.readouterr().out
    assert dispatch(["trust", "--yes"]) == 0
    assert capsys.readouterr().out.endswith(f"Adopted {work / 'cloister.toml'}.\n")
    assert dispatch(["policy", "show", "--json"]) == 0
    ids = [rule["id"] for rule in json.loads(capsys.readouterr().out)["policy"]["grants"]]
    assert "preset:github:github.com" in ids


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_init_overwrites_nothing_and_follows_no_link(work: Path, capsys: Capture, kind: str) -> None:
    file = work / "cloister.toml"
    if kind == "file":
        file.write_text("# mine\n")
    else:
        os.symlink("../elsewhere", file)
    assert dispatch(["init"]) == 125
    assert "exists already, and is left as it is" in capsys.readouterr().err
    assert not (work.parent / "elsewhere").exists()


def test_policy_without_grants_says_so(work: Path, capsys: Capture) -> None:
    assert dispatch(["policy", "show", "--profile", "offline"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("profile offline: nothing\n")
    assert "allowed: nothing" in shown


@pytest.mark.parametrize(
    ("url", "code"),
    [("http://x.example.com/a", 0), ("http://x.example.com?a", 1), ("http://x.example.com/b?/a", 1)],
)
def test_why_judges_the_path_without_the_query(work: Path, capsys: Capture, url: str, code: int) -> None:
    (work / "cloister.toml").write_text(
        '[[network.rule]]\nhost = "x.example.com"\nscheme = "http"\npaths = ["/a"]\n'
    )
    assert dispatch(["trust", "--yes"]) == 0
    assert dispatch(["why", url]) == code
    assert capsys.readouterr().out.endswith("  profile: agent\n")
