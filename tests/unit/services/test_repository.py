"""Worktrees share a repository's services; what an agent writes does not make a workspace another's worktree."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cloister.config.directories import project_id
from cloister.services import repository

GIT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "PATH": "/usr/bin:/bin",
    "HOME": "/",
}


def git(directory: Path, *arguments: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=x", "-c", "user.email=x@example.com", *arguments],
        cwd=directory, env=GIT, check=True, capture_output=True,
    )  # fmt: skip


@pytest.fixture
def main(tmp_path: Path) -> Path:
    directory = tmp_path / "acme"
    directory.mkdir()
    git(directory, "init", "-q")
    git(directory, "commit", "-q", "--allow-empty", "-m", "x")
    return directory


def test_worktrees_have_the_key_of_their_repository(main: Path, tmp_path: Path) -> None:
    git(main, "worktree", "add", "-q", str(tmp_path / "agent"))
    assert repository.key(str(main)) == project_id(str(main))
    assert repository.key(str(tmp_path / "agent")) == project_id(str(main))


def test_a_worktree_of_a_bare_repository(main: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--bare", str(main), "bare.git")
    git(tmp_path / "bare.git", "worktree", "add", "-q", str(tmp_path / "agent"))
    assert repository.key(str(tmp_path / "agent")) == project_id(str(tmp_path / "bare.git"))


def test_without_git_a_workspace_is_its_own(tmp_path: Path) -> None:
    assert repository.key(str(tmp_path)) == project_id(str(tmp_path))


@pytest.mark.parametrize(
    "text", ["", "gitdir: ", "gitdir: /", "x", "gitdir: ../..", "gitdir: \0", "gitdir: " + "a" * 9999]
)
def test_a_git_file_that_leads_nowhere(tmp_path: Path, text: str) -> None:
    (tmp_path / ".git").write_text(text)
    assert repository.root(str(tmp_path)) == str(tmp_path)


def test_a_workspace_cannot_claim_anothers_services(main: Path, tmp_path: Path) -> None:
    """The agent writes its own workspace: neither a .git that names the victim's worktree, nor a made-up one, counts."""
    git(main, "worktree", "add", "-q", str(tmp_path / "agent"))
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / ".git").write_text((tmp_path / "agent/.git").read_text())
    assert repository.root(str(evil)) == str(evil), "the repository says that this worktree is elsewhere"
    fake = evil / "worktrees/x"
    fake.mkdir(parents=True)
    (fake / "commondir").write_text(f"{main}/.git")
    (fake / "gitdir").write_text(f"{evil}/.git")
    (evil / ".git").write_text(f"gitdir: {fake}")
    assert repository.root(str(evil)) == str(evil)
    (evil / "link").symlink_to(main / ".git")
    (evil / ".git").write_text(f"gitdir: {evil}/link/worktrees/agent")
    assert repository.root(str(evil)) == str(evil)


def test_git_that_is_no_file(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    assert repository.root(str(tmp_path)) == str(tmp_path)
