"""`cloister diff` and `cloister apply`: what is shown, asked and left out."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from cloister import cli
from cloister.config import directories
from cloister.workspaces import store
from cloister.workspaces.materialise import materialise
from tests.unit.workspaces.conftest import Git, git, home  # noqa: F401  # fixtures


class Terminal(io.StringIO):
    """A standard input that somebody types at."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, git: Git) -> Path:  # noqa: F811
    directory = tmp_path / "project"
    directory.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.chdir(directory)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    git(directory, "init", "-q")
    (directory / "file").write_text("one\n")
    git(directory, "add", "file")
    git(directory, "commit", "-qm", "first")
    return directory


def files_of(place: Path, kind: str, tmp_path: Path) -> Path:
    project = directories.project(str(place), os.environ)
    return Path(materialise(project, kind, "main", home=str(tmp_path / "home")))


def test_diff_and_apply(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = files_of(place, "volume", tmp_path)
    assert cli.dispatch(["diff"]) == 0
    assert cli.dispatch(["apply"]) == 0
    assert capsys.readouterr().out == "The sandbox has changed nothing.\n"
    (inside / "file").write_text("two\n")
    (inside / ".envrc").write_text("evil\n")
    (inside / "out").symlink_to("/etc/passwd")
    assert cli.dispatch(["diff", "--names"]) == 0
    assert capsys.readouterr().out == "added    .envrc\nchanged  file\nadded    out\n"
    assert cli.dispatch(["apply"]) == 125, "nobody is asked without a terminal"
    assert "cloister apply main --yes" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert cli.dispatch(["apply"]) == 1
    assert (place / "file").read_text() == "one\n"
    capsys.readouterr()
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert cli.dispatch(["apply"]) == 0
    said = capsys.readouterr().out
    assert "left out: .envrc: your tools act on '.envrc' (--include-protected)" in said
    assert "refused: out: it is a link to an absolute path" in said
    assert f"Apply 1 of 3 changes to {place}? [y/N]" in said
    assert (place / "file").read_text() == "two\n"
    assert not (place / ".envrc").exists()
    assert not (place / "out").is_symlink()
    assert cli.dispatch(["apply", "--yes", "--include-protected"]) == 0
    assert "protected, and included: .envrc" in capsys.readouterr().out
    assert (place / ".envrc").read_text() == "evil\n"


def test_the_patch_goes_out_as_bytes_but_never_paints_a_terminal(
    place: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = files_of(place, "volume", tmp_path)
    (inside / "file").write_bytes(b"\x1b[2J\xff\n")
    assert cli.dispatch(["diff"]) == 0
    assert b"+\x1b[2J\xff\n" in capfdbinary.readouterr().out

    monkeypatch.setattr("sys.stdout", screen := Terminal())
    assert cli.dispatch(["diff"]) == 0
    assert "\x1b" not in screen.getvalue()
    assert r"+\x1b[2J\xff" in screen.getvalue()


def test_a_clone_comes_back_as_a_branch(
    place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    git: Git,  # noqa: F811
) -> None:
    inside = files_of(place, "clone", tmp_path)
    assert cli.dispatch(["apply", "--yes"]) == 0
    assert capsys.readouterr().out == "The sandbox has committed nothing.\n"
    (inside / ".envrc").write_text("x\n")
    git(inside, "add", "-A")
    git(inside, "commit", "-qm", "work \x1b[2J")
    (inside / "file").write_text("not committed\n")
    assert cli.dispatch(["apply", "--yes"]) == 0
    said = capsys.readouterr().out
    assert "has not committed" in said
    assert "\x1b" not in said.partition("\n\n")[2]
    assert "your tools act on this, once you check the branch out: .envrc" in said
    assert "git merge cloister/main" in said
    assert git(place, "show", "cloister/main:.envrc") == "x\n"
    assert git(place, "status", "--porcelain") == ""


def test_a_sandbox_that_works_in_the_project(
    place: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.dispatch(["diff", "other"]) == 125
    said = capsys.readouterr().err
    assert "no sandbox 'other'" in said
    assert "git diff" in said
    files_of(place, "volume", tmp_path)
    assert cli.dispatch(["apply", "other"]) == 125
    assert "these have: main" in capsys.readouterr().err
    assert cli.dispatch(["apply", "../x"]) == 2
    assert "would lead to another directory" in capsys.readouterr().err
    assert not store.listed(directories.project(str(tmp_path), os.environ))
