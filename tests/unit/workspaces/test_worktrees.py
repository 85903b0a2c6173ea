"""Work trees: made as git makes them, and never removed with work in them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from cloister import cli
from cloister.config.directories import Project
from cloister.errors import RepositoryError, UsageError, WorkspaceError
from cloister.sandbox import registry
from cloister.workspaces import git as host_git
from cloister.workspaces import pending, repository, worktrees
from tests.unit.workspaces.conftest import Git


@pytest.fixture
def place(project: Project, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.chdir(project.workspace)
    return Path(project.workspace)


def made(place: Path, home: Path, name: str = "fix") -> Path:
    return Path(worktrees.make_or_use(str(place), name, home=str(home)))


def test_it_is_one_that_git_knows(place: Path, home: Path, git: Git) -> None:
    path = made(place, home)
    assert path == Path(f"{place}.worktrees/fix")
    assert git(path, "status", "--porcelain=v2", "--branch").splitlines() == [
        f"# branch.oid {git(place, 'rev-parse', 'HEAD').strip()}", "# branch.head fix",
    ]  # fmt: skip
    assert (path / "file").read_text() == "one\ntwo\nthree\n", "the last commit, not what is in progress"
    assert git(place, "worktree", "list", "--porcelain").count("worktree ") == 2
    git(path, "commit", "-q", "--allow-empty", "-m", "work")
    git(place, "fsck", "--strict")
    assert git(place, "worktree", "prune", "-v", "--expire", "now") == ""
    assert made(place, home) == path, "it is used again"
    assert made(path, home) == path, "from within, too"
    assert made(place / "src", home) == path


def test_it_takes_a_branch_that_is_there(place: Path, home: Path, git: Git) -> None:
    git(place, "branch", "fix", "HEAD~1")
    assert git(made(place, home), "log", "--format=%s") == "first\n"


def test_another_place(place: Path, home: Path, tmp_path: Path, git: Git) -> None:
    first = made(place, home)
    path = worktrees.make_or_use(str(place), "other", home=str(home), holder=str(tmp_path / "trees"))
    assert path == str(tmp_path / "trees/other")
    assert [one.name for one in worktrees.listed(repository.find(str(first)))] == ["fix", "other"]


def test_what_is_in_the_way(place: Path, home: Path, git: Git) -> None:
    Path(f"{place}.worktrees/fix").mkdir(parents=True)
    with pytest.raises(WorkspaceError, match="there already"):
        made(place, home)
    with pytest.raises(RepositoryError, match=r"checked out in .* itself"):
        made(place, home, "main")
    git(place, "worktree", "add", "-q", "-b", "elsewhere", str(home / "elsewhere"))
    with pytest.raises(RepositoryError, match=r"checked out in .*/home/elsewhere") as refused:
        made(place, home, "elsewhere")
    assert "cloister dev -C" in refused.value.resolution


@pytest.mark.parametrize("name", ["../x", "-rf", "a/b", "", "x" * 65, "ä", "a b", "HEAD", ".git"])
def test_names_that_are_none(name: str, place: Path, home: Path) -> None:
    with pytest.raises(UsageError):
        made(place, home, name)
    assert not os.path.lexists(f"{place}.worktrees")


def test_a_failure_leaves_nothing(place: Path, home: Path, git: Git, monkeypatch: pytest.MonkeyPatch) -> None:
    real = host_git.run

    def failing(ours: object, arguments: list[str], **how: object) -> bytes:
        if arguments[0] == "read-tree":
            raise RepositoryError("no room")
        return real(ours, arguments, **how)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(host_git, "run", failing)
    with pytest.raises(RepositoryError, match="no room"):
        made(place, home)
    assert not os.path.lexists(f"{place}.worktrees")
    assert git(place, "worktree", "list", "--porcelain").count("worktree ") == 1
    assert git(place, "branch", "--list", "fix") == ""


def test_nothing_of_the_repository_is_executed(place: Path, home: Path, tmp_path: Path, git: Git) -> None:
    """Hooks and filters that plain `git worktree add` would run (the control)."""
    mark = tmp_path / "mark"
    git(place, "config", "filter.x.smudge", f"touch {mark}; cat")
    (place / ".git/hooks").mkdir(exist_ok=True)
    (place / ".git/hooks/post-checkout").write_text(f"#!/bin/sh\ntouch {mark}\n")
    (place / ".git/hooks/post-checkout").chmod(0o755)
    (place / ".git/info/attributes").write_text("* filter=x\n")
    made(place, home)
    assert not mark.exists()
    git(place, "worktree", "add", "-q", "-b", "plain", str(tmp_path / "plain"))
    assert mark.exists()


def test_a_clean_one_is_removed_and_its_branch_stays(
    place: Path, home: Path, git: Git, capsys: pytest.CaptureFixture[str]
) -> None:
    path = made(place, home)
    git(path, "commit", "-q", "--allow-empty", "-m", "work")
    (path / "build").mkdir()
    (path / "build/out").write_text("ignored")
    assert cli.dispatch(["worktree", "list"]) == 0
    assert "fix   fix     clean" in capsys.readouterr().out
    assert cli.dispatch(["worktree", "remove", "fix"]) == 0
    said = capsys.readouterr().out
    assert f"Removed {path}.\n" in said
    assert "The branch fix stays, with 3 commits that are on no remote." in said
    assert not path.exists()
    assert not path.parent.exists()
    assert git(place, "log", "-1", "--format=%s", "fix") == "work\n"
    assert git(place, "worktree", "list", "--porcelain").count("worktree ") == 1
    assert cli.dispatch(["worktree", "list"]) == 0
    assert "make one: cloister dev --worktree NAME" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("work", "said"),
    [
        ("echo x >> file", "changed, not committed: file"),
        ("rm file", "changed, not committed: file"),
        ("echo x > file; git add file", "changed, not committed: file"),
        ("echo x > new", "untracked: new"),
        ("mkdir d; echo x > d/new", "untracked: d/new"),
        ("git init -q sub; echo x > sub/y", "a repository of its own, not looked into: sub"),
        ("git checkout -q --detach; git commit -q --allow-empty -m lost", "a commit that no branch has: "),
        ("git checkout -qb a; echo a > file; git commit -qam a; git checkout -q fix; echo b > file; git commit -qam b; git merge a", "unfinished: a merge"),
        ("printf 'a\\033[2J' > \"$(printf 'new\\033[2J')\"", "untracked: new\\x1b[2J"),
    ],
)  # fmt: skip
def test_work_is_never_lost(
    work: str, said: str, place: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = made(place, home)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }
    subprocess.run(["/bin/sh", "-c", work], cwd=path, env=environment, check=False, capture_output=True)
    assert cli.dispatch(["worktree", "remove", "fix"]) == 125
    error = capsys.readouterr().err
    assert said in error
    assert "git commit" in error
    assert path.exists()
    assert cli.dispatch(["worktree", "list"]) == 0
    assert "clean" not in capsys.readouterr().out
    assert cli.dispatch(["worktree", "remove", "--force", "fix"]) == 0
    assert said in capsys.readouterr().out, "it is shown first"
    assert not path.exists()


def test_a_stash_stays(place: Path, home: Path, git: Git, capsys: pytest.CaptureFixture[str]) -> None:
    path = made(place, home)
    (path / "file").write_text("stashed\n")
    git(path, "stash", "-q")
    assert cli.dispatch(["worktree", "remove", "fix"]) == 0
    assert "1 stashes stay" in capsys.readouterr().out
    assert "stashed" in git(place, "stash", "show", "-p")


def test_a_branch_is_deleted_only_if_another_has_its_commits(
    place: Path, home: Path, git: Git, capsys: pytest.CaptureFixture[str]
) -> None:
    path = made(place, home)
    git(path, "commit", "-q", "--allow-empty", "-m", "only here")
    assert cli.dispatch(["worktree", "remove", "--delete-branch", "fix"]) == 125
    assert "only here" in capsys.readouterr().err
    assert path.exists()
    git(place, "branch", "kept", "fix")
    assert cli.dispatch(["worktree", "remove", "--delete-branch", "fix"]) == 0
    assert git(place, "branch", "--list", "fix") == ""


def test_what_refuses_removal(
    place: Path, home: Path, git: Git, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made(place, home)
    assert cli.dispatch(["worktree", "remove", "../x"]) == 2
    assert cli.dispatch(["worktree", "remove", "other"]) == 125
    assert "it has: fix" in capsys.readouterr().err
    assert cli.dispatch(["worktree", "remove", "-C", str(path), "fix"]) == 125
    assert "where you are" in capsys.readouterr().err
    git(place, "worktree", "lock", "--reason", "on a stick", str(path))
    assert cli.dispatch(["worktree", "remove", "fix"]) == 125
    assert "is locked: on a stick" in capsys.readouterr().err
    git(place, "worktree", "unlock", str(path))
    me = registry.identify(os.getpid())
    assert me is not None
    live = registry.Record(sandbox_id="s", workspace=str(path), session=me)
    monkeypatch.setattr(registry, "records", lambda _: [live])
    assert cli.dispatch(["worktree", "remove", "--force", "fix"]) == 125
    assert "cloister stop" in capsys.readouterr().err
    assert path.exists()


def test_one_whose_directory_is_gone(
    place: Path, home: Path, git: Git, capsys: pytest.CaptureFixture[str]
) -> None:
    path = made(place, home)
    path.rename(home / "moved")
    assert cli.dispatch(["worktree", "list"]) == 0
    assert "gone" in capsys.readouterr().out
    assert cli.dispatch(["worktree", "remove", "fix"]) == 0
    assert (home / "moved/file").exists(), "what is elsewhere is not touched"
    assert git(place, "worktree", "list", "--porcelain").count("worktree ") == 1


def test_notes_that_lead_elsewhere_remove_nothing(
    place: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sandbox in the main work tree may have written them."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").touch()
    evil = place / ".git/worktrees/evil"
    evil.mkdir(parents=True)
    for name, text in (
        ("gitdir", f"{victim}/.git\n"),
        ("commondir", "../..\n"),
        ("HEAD", "ref: refs/heads/main\n"),
    ):
        (evil / name).write_text(text)
    assert cli.dispatch(["worktree", "remove", "--force", "evil"]) == 125
    assert "is no work tree of" in capsys.readouterr().err
    assert (victim / "precious").exists()


def test_a_submodule_and_a_directory_without_repository(
    tmp_path: Path, home: Path, git: Git, place: Path
) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    with pytest.raises(RepositoryError, match="not the top of a git repository"):
        made(plain, home)
    git(place, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(place), "sub")
    with pytest.raises(RepositoryError, match="leads to no git directory that leads back"):
        made(place / "sub", home)
    with pytest.raises(RepositoryError, match="bare"):
        git(tmp_path, "clone", "-q", "--bare", str(place), "bare")
        made(tmp_path / "bare", home)


def test_nothing_is_lost_by_absence(place: Path, home: Path) -> None:
    """The verdict must come from what was seen: each kind of work alone makes it unclean."""
    empty = dict.fromkeys(("changed", "untracked", "nested", "unfinished", "lost", "unpushed", "stashes"), ())
    assert pending.Pending(**empty).is_clean
    for name in ("changed", "untracked", "nested", "unfinished", "lost"):
        assert not pending.Pending(**{**empty, name: ("x",)}).is_clean
