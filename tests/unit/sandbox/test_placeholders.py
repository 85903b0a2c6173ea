from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloister.sandbox import placeholders
from cloister.sandbox.protect import Placeholder


@pytest.fixture
def state(tmp_path: Path) -> str:
    return str(tmp_path / "state")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    workspace = tmp_path / "project"
    workspace.mkdir()
    return workspace


def wanted(workspace: Path) -> list[Placeholder]:
    return [Placeholder(str(workspace / ".vscode")), Placeholder(str(workspace / "commondir"), b".\n")]


def test_made_and_removed(state: str, workspace: Path) -> None:
    placeholders.acquire(state, "a", wanted(workspace))
    assert (workspace / ".vscode").is_dir()
    assert (workspace / "commondir").read_bytes() == b".\n"
    placeholders.release(state, "a")
    placeholders.release(state, "a")
    assert list(workspace.iterdir()) == []


def test_kept_while_another_sandbox_relies_on_it(state: str, workspace: Path) -> None:
    placeholders.acquire(state, "a", wanted(workspace))
    placeholders.acquire(state, "b", wanted(workspace))
    placeholders.release(state, "a")
    assert (workspace / ".vscode").is_dir()
    placeholders.release(state, "b")
    assert list(workspace.iterdir()) == []


def test_what_the_user_made_stays(state: str, workspace: Path) -> None:
    (workspace / ".vscode").mkdir()
    (workspace / "commondir").write_bytes(b".\n")
    placeholders.acquire(state, "a", wanted(workspace))
    placeholders.release(state, "a")
    assert (workspace / ".vscode").is_dir()
    assert (workspace / "commondir").exists()


def test_what_was_changed_meanwhile_stays(state: str, workspace: Path) -> None:
    placeholders.acquire(state, "a", wanted(workspace))
    (workspace / ".vscode/settings.json").touch()
    (workspace / "commondir").write_bytes(b"..\n")
    placeholders.release(state, "a")
    assert (workspace / ".vscode/settings.json").exists()
    assert (workspace / "commondir").exists()


def test_what_a_kill_left_is_removed(state: str, workspace: Path) -> None:
    placeholders.acquire(state, "dead", wanted(workspace))
    placeholders.acquire(state, "live", wanted(workspace)[:1])
    placeholders.release_dead(state, lambda sandbox: sandbox == "live")
    assert [path.name for path in workspace.iterdir()] == [".vscode"]
    placeholders.release_dead(state, lambda sandbox: False)
    assert list(workspace.iterdir()) == []


def test_a_kill_between_record_and_creation_is_harmless(state: str, workspace: Path) -> None:
    placeholders.acquire(state, "a", wanted(workspace))
    (workspace / ".vscode").rmdir()
    placeholders.acquire(state, "b", wanted(workspace))
    assert (workspace / ".vscode").is_dir(), "made again for whoever needs it now"


def test_a_damaged_state_loses_nothing_of_the_user(state: str, workspace: Path) -> None:
    placeholders.acquire(state, "a", wanted(workspace))
    Path(state, placeholders.NAME).write_text("{")
    placeholders.release(state, "a")
    assert (workspace / ".vscode").is_dir()


def test_no_link_is_followed(state: str, workspace: Path) -> None:
    outside = workspace.parent / "outside"
    outside.mkdir()
    (workspace / "sub").symlink_to(outside)
    with pytest.raises(OSError):
        placeholders.acquire(state, "a", [Placeholder(str(workspace / "sub/hooks"))])
    assert list(outside.iterdir()) == []


def test_nested_placeholders_go_deepest_first(state: str, workspace: Path) -> None:
    nested = [Placeholder(str(workspace / "a")), Placeholder(str(workspace / "a/b"))]
    placeholders.acquire(state, "x", nested)
    assert json.loads(Path(state, placeholders.NAME).read_text())
    placeholders.release(state, "x")
    assert list(workspace.iterdir()) == []
