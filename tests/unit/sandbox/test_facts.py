from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloister.errors import HostError
from cloister.sandbox import facts


def test_the_user_as_the_sandbox_shows_them(tmp_path: Path) -> None:
    found = facts.look({"HOME": str(tmp_path), "USER": "ada", "PATH": "/usr/bin:relative::/bin"})
    assert found.home == str(tmp_path)
    assert found.path == ("/usr/bin", "/bin")
    assert found.uid != 0, "never root inside"
    assert found.user_name == ("agent" if os.geteuid() == 0 else "ada")


@pytest.mark.parametrize("name", ["", "a:b", "a\nroot:x:0:0", "ünïcode", "x" * 65])
def test_a_user_name_that_would_break_passwd_is_not_taken(name: str, tmp_path: Path) -> None:
    assert not facts.is_user_name(name)
    assert facts.is_user_name(facts.look({"HOME": str(tmp_path), "USER": name}).user_name)


@pytest.mark.parametrize("home", ["/nonexistent", "/"])
def test_a_missing_home_is_said(home: str) -> None:
    with pytest.raises(HostError, match="home directory"):
        facts.look({"HOME": home, "USER": "ada"})


def fake(directory: Path, output: str) -> str:
    directory.mkdir()
    program = directory / "bwrap"
    program.write_text(f"#!/bin/sh\necho x >> {directory}/calls\necho {output}\n")
    program.chmod(0o755)
    return str(directory)


@pytest.fixture(autouse=True)
def no_system_bubblewrap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "SYSTEM_DIRECTORIES", ())


def test_the_version_is_asked_once(tmp_path: Path) -> None:
    directory = fake(tmp_path / "bin", "bubblewrap 0.11.0")
    for _ in range(2):
        found = facts.bubblewrap((directory,), str(tmp_path / "cache"), workspace="/elsewhere")
        assert (found.path, found.version) == (f"{directory}/bwrap", (0, 11, 0))
    assert Path(directory, "calls").read_text() == "x\n"
    os.utime(found.path, (1, 1))
    facts.bubblewrap((directory,), str(tmp_path / "cache"), workspace="/elsewhere")
    assert Path(directory, "calls").read_text() == "x\nx\n", "after an upgrade it is asked again"


def test_missing_or_odd_bubblewrap_is_said(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="not installed"):
        facts.bubblewrap((), str(tmp_path), workspace="/elsewhere")
    with pytest.raises(HostError, match="does not tell its version"):
        facts.bubblewrap((fake(tmp_path / "bin", "odd"),), str(tmp_path / "cache"), workspace="/elsewhere")


@pytest.mark.parametrize("linked", [False, True])
def test_a_bubblewrap_in_the_workspace_is_none(tmp_path: Path, linked: bool) -> None:
    """It would be run outside the sandbox, and the agent may have written it."""
    workspace = tmp_path / "project"
    workspace.mkdir()
    directory = fake(workspace / "bin", "bubblewrap 0.11.0")
    if linked:
        (tmp_path / "tools").symlink_to(directory)
        directory = str(tmp_path / "tools")
    with pytest.raises(HostError, match="not installed"):
        facts.bubblewrap((directory,), str(tmp_path / "cache"), workspace=str(workspace))
    assert not (workspace / "bin/calls").exists()
