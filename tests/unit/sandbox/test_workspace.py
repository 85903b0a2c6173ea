from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloister.errors import WorkspaceError
from cloister.sandbox import workspace
from cloister.session import prepare


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home" / "ada"
    home.mkdir(parents=True)
    return home


def made(path: Path) -> str:
    path.mkdir(parents=True, exist_ok=True)
    return str(path)


def test_find_prefers_the_configuration_to_a_nearer_repository(home: Path) -> None:
    project = home / "project"
    start = made(project / "part" / "deep")
    (project / "cloister.toml").touch()
    (project / "part" / ".git").mkdir()
    (project / "part" / ".git" / "HEAD").touch()
    assert workspace.find(start, str(home)) == str(project)


def test_find_takes_the_nearest_repository(home: Path) -> None:
    start = made(home / "project" / "deep")
    (home / "project" / ".git").mkdir()
    assert workspace.find(start, str(home)) == start, "an empty .git is a placeholder of ours, no repository"
    (home / "project" / ".git" / "HEAD").touch()
    assert workspace.find(start, str(home)) == str(home / "project")


def test_find_takes_a_worktree(home: Path) -> None:
    start = made(home / "project" / "deep")
    (home / "project" / ".git").write_text("gitdir: /elsewhere\n")
    assert workspace.find(start, str(home)) == str(home / "project")


def test_find_never_climbs_to_the_home(home: Path) -> None:
    (home / ".git").write_text("gitdir: /elsewhere\n")
    (home / "cloister.toml").touch()
    (home.parent / ".git").write_text("gitdir: /elsewhere\n")
    start = made(home / "notes" / "deep")
    assert workspace.find(start, str(home)) == start
    assert workspace.find(str(home), str(home)) == str(home)


def test_a_directory_that_is_none_makes_no_workspace_of_the_one_above(home: Path) -> None:
    (home / "project" / ".git").mkdir(parents=True)
    (home / "project" / ".git" / "HEAD").touch()
    (home / "project" / "file").touch()
    for name, said in (("no such", "does not exist"), ("file", "is not a directory")):
        with pytest.raises(WorkspaceError, match=said) as refused:
            prepare.find_project(str(home / "project" / name), str(home), {})
        assert name != "no such" or f"mkdir -p '{home}/project/no such'" in refused.value.resolution


def test_find_resolves_symlinks(home: Path) -> None:
    real = made(home / "real")
    (home / "link").symlink_to(real)
    assert workspace.find(str(home / "link"), str(home)) == real


@pytest.mark.parametrize(
    "path",
    [
        "/", "/etc", "/etc/apt", "/usr", "/usr/bin", "/var", "/var/lib", "/tmp", "/home", "/dev/shm",
        "/proc/self", "/proc", "/sys", "/run",
    ],
)  # fmt: skip
def test_system_directories_are_refused(path: str, home: Path) -> None:
    with pytest.raises(WorkspaceError, match="cannot be given to a sandbox"):
        workspace.check(path, str(home), {})


@pytest.mark.parametrize(
    "name",
    ["", ".ssh", ".ssh/keys", ".aws", ".gnupg", ".config", ".config/nvim", ".kube", ".docker", ".local/bin",
     ".local", ".local/state/cloister/projects/x/home", ".cache/cloister", "go/bin", "go"],
)  # fmt: skip
def test_private_directories_of_the_home_are_refused(name: str, home: Path) -> None:
    path = made(home / name)
    with pytest.raises(WorkspaceError, match="cannot be given to a sandbox"):
        workspace.check(path, str(home), {})


def test_what_contains_the_home_or_our_state_is_refused(home: Path) -> None:
    with pytest.raises(WorkspaceError, match="contains your home directory"):
        workspace.check(str(home.parent), str(home), {})
    outer = made(home / "outer")
    with pytest.raises(WorkspaceError, match="contains cloister's own directory"):
        workspace.check(outer, str(home), {"XDG_STATE_HOME": f"{outer}/state"})


def test_a_symlink_to_the_home_is_the_home(home: Path) -> None:
    (home / "project").symlink_to(home)
    with pytest.raises(WorkspaceError, match="your home directory"):
        workspace.check(str(home / "project"), str(home), {})


def test_missing_and_not_a_directory_say_what_to_type(home: Path) -> None:
    with pytest.raises(WorkspaceError, match="does not exist") as missing:
        workspace.check(str(home / "nothing"), str(home), {})
    assert "mkdir -p" in missing.value.resolution
    (home / "file").touch()
    with pytest.raises(WorkspaceError, match="is not a directory"):
        workspace.check(str(home / "file"), str(home), {})


def test_control_characters_are_refused(home: Path) -> None:
    path = made(home / "a\x1b]0;x\x07b")
    with pytest.raises(WorkspaceError, match="control character"):
        workspace.check(path, str(home), {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_not_writable_is_refused(home: Path) -> None:
    path = made(home / "project")
    os.chmod(path, 0o555)
    with pytest.raises(WorkspaceError, match="not writable"):
        workspace.check(path, str(home), {})


@pytest.mark.parametrize("name", ["project", "go/src/example.org/x", ".dotfiles", "-rf", "ünïcode", "a b"])
def test_ordinary_projects_are_accepted(name: str, home: Path) -> None:
    workspace.check(made(home / name), str(home), {})


def test_a_workspace_that_holds_cloister_itself_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent could rewrite what the next command runs on the host."""
    project = made(home / "project")
    monkeypatch.setattr(workspace, "OWN_PROGRAM", (f"{home}/tools/venv",))
    workspace.check(project, str(home), {})
    monkeypatch.setattr(workspace, "OWN_PROGRAM", (f"{project}/.venv",))
    with pytest.raises(WorkspaceError, match="contains the cloister that you run"):
        workspace.check(project, str(home), {})
