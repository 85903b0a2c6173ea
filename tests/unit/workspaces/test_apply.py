"""Bringing changes back: all or nothing, what was shown, never through a link."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from cloister.config.directories import Project
from cloister.errors import RepositoryError, WorkspaceError
from cloister.workspaces import apply, changes, clone, patch, repository, store, tree, undo
from cloister.workspaces import git as host_git
from cloister.workspaces.apply import ConflictError
from cloister.workspaces.materialise import materialise
from cloister.workspaces.store import Stored
from tests.unit.workspaces.conftest import Git


@pytest.fixture
def stored(project: Project, home: Path) -> Stored:
    materialise(project, "volume", "main", home=str(home))
    found = store.load(project, "main")
    assert found is not None
    return found


def bring(project: Project, stored: Stored) -> list[str]:
    with changes.taken(stored) as snapshot:
        return apply.apply(project, stored, snapshot, snapshot.changes)


def shape(directory: str) -> dict[str, object]:
    """Every file's content and mode, every link's target."""
    found: dict[str, object] = {}
    for path in sorted(Path(directory).rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(directory))] = os.readlink(path)
        elif path.is_file():
            found[str(path.relative_to(directory))] = (path.read_bytes(), path.stat().st_mode)
    return found


def work(stored: Stored) -> None:
    """What an agent does: change, add, delete, replace, make executable."""
    place = Path(stored.files)
    (place / "file").write_text("zero\none\ntwo\nthree\nfour\n")
    (place / "src/run.sh").unlink()
    (place / "deep/er").mkdir(parents=True)
    (place / "deep/er/added").write_bytes(b"\0\xff binary")
    (place / "new").chmod(0o755)
    (place / "link").unlink()
    (place / "link").symlink_to("file")
    (place / ".git/config").write_text("[core]\n\tfsmonitor = x\n")


def test_changes_come_back(project: Project, stored: Stored) -> None:
    work(stored)
    (Path(project.workspace) / "file").chmod(0o600)
    assert bring(project, stored) == []
    place = Path(project.workspace)
    assert (place / "file").read_text() == "zero\none\ntwo\nthree\nfour\n"
    assert (place / "file").stat().st_mode & 0o777 == 0o600, "the user's mode stays"
    assert not (place / "src").exists(), "an empty directory goes as git would let it go"
    assert (place / "deep/er/added").read_bytes() == b"\0\xff binary"
    assert os.access(place / "new", os.X_OK)
    assert os.readlink(place / "link") == "file"
    assert "fsmonitor" not in (place / ".git/config").read_text()
    assert (place / ".env").exists(), "what was never given is not taken for deleted"
    with changes.taken(stored) as snapshot:
        assert snapshot.changes == (), "what has come is no change any more"
    assert not os.path.exists(stored.undo)


def test_the_patch_is_one_that_git_applies(project: Project, stored: Stored) -> None:
    work(stored)
    with changes.taken(stored) as snapshot:
        text = patch.patch(snapshot)
    subprocess.run(["git", "apply", "-"], cwd=project.workspace, input=text, check=True)
    (Path(project.workspace) / "build/out").unlink()
    mine = {
        name: value
        for name, value in shape(project.workspace).items()
        if not name.startswith((".git/", ".env", "secret"))
    }
    assert mine == {
        name: value for name, value in shape(stored.files).items() if not name.startswith(".git/")
    }


def test_an_attribute_of_the_agents_hides_nothing(stored: Stored) -> None:
    place = Path(stored.files)
    (place / ".gitattributes").write_text("* binary -diff\n")
    (place / "file").write_text("shown\n")
    with changes.taken(stored) as snapshot:
        assert b"+shown" in patch.patch(snapshot)


def test_without_git_text_is_shown_and_applied(
    project: Project, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    work(stored)
    monkeypatch.setattr(host_git, "_PLACES", ("/nonexistent",))
    with changes.taken(stored) as snapshot:
        text = patch.patch(snapshot).decode()
        assert "--- a/file\n+++ b/file\n" in text
        assert "+zero\n" in text
        assert "added: deep/er/added\n" in text
    bring(project, stored)
    assert (Path(project.workspace) / "deep/er/added").exists()


def test_a_change_elsewhere_in_the_file_is_merged(project: Project, stored: Stored) -> None:
    (Path(stored.files) / "file").write_text("ONE\ntwo\nthree\nfour\n")
    (Path(project.workspace) / "file").write_text("one\ntwo\nthree\nfour\nfive\nsix\n")
    assert bring(project, stored) == ["file"]
    assert (Path(project.workspace) / "file").read_text() == "ONE\ntwo\nthree\nfour\nfive\nsix\n"


@pytest.mark.parametrize(
    ("theirs", "mine", "said"),
    [
        ("echo theirs > file", "echo mine > file", "file: you have changed it too, in the same place"),
        ("rm file", "echo mine > file", "file: you have changed it, and the sandbox has deleted it"),
        ("echo theirs > file", "rm file", "file: you have deleted it, and the sandbox has changed it"),
        ("echo theirs > x", "echo mine > x", "x: you have it already, and it is another"),
        ("echo theirs > .env", ":", ".env: you have it already, and it is another"),
        ("mkdir d; echo theirs > d/x", "echo mine > d", "d/x: you have a file or a link at 'd'"),
        ("mkdir d; echo theirs > d/x", "ln -s /tmp d", "d/x: you have a file or a link at 'd'"),
        ("echo theirs > d", "mkdir d; echo mine > d/x", "d: you have a directory there, which is not empty"),
        ("rm file; ln -s new file", "echo mine > file", "file: you have changed it too"),
        ("ln -s out/x inner", "ln -s /etc out", "inner: it is a link that leads out of the project"),
        ("echo theirs > src/run.sh", "rm -r src; ln -s /tmp src", "src/run.sh: you have deleted it, and"),
        (
            "rm file",
            "rm file; mkdir file; touch file/x",
            "file: you have changed it, and the sandbox has deleted it",
        ),
    ],
)
def test_a_conflict_is_named_and_nothing_is_written(
    theirs: str, mine: str, said: str, project: Project, stored: Stored
) -> None:
    (Path(stored.files) / "another").write_text("would come")
    (Path(stored.files) / "new").write_text("would come")
    for script, where in ((theirs, stored.files), (mine, project.workspace)):
        subprocess.run(["/bin/sh", "-c", script], cwd=where, check=True)
    before = shape(project.workspace)
    with pytest.raises(ConflictError) as conflict:
        bring(project, stored)
    assert said in conflict.value.details
    assert shape(project.workspace) == before
    with changes.taken(stored) as snapshot:
        assert snapshot.changes, "they are still there to be applied"


def test_a_failure_half_way_is_undone(
    project: Project, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    work(stored)
    before = shape(project.workspace)
    real, calls = tree.replace, 0

    def failing(source: str, root: str, entry: tree.Entry) -> None:
        nonlocal calls
        calls += root == project.workspace
        if calls == 3:
            raise OSError(28, "No space left on device")
        real(source, root, entry)

    monkeypatch.setattr(tree, "replace", failing)
    with pytest.raises(OSError, match="No space"):
        bring(project, stored)
    assert shape(project.workspace) == before


def test_what_a_killed_command_left_is_undone(
    project: Project, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after `kill -9` in the middle: nothing of the body's end has run."""
    work(stored)
    before = shape(project.workspace)
    saving = undo.saved(project.workspace, stored, ["file", "deep/er/added", "src/run.sh"])
    saving.__enter__()
    (Path(project.workspace) / "file").write_text("half")
    (Path(project.workspace) / "src/run.sh").unlink()
    (Path(project.workspace) / "deep/er").mkdir(parents=True)
    (Path(project.workspace) / "deep/er/added").write_text("half")
    assert undo.recover(project.workspace, stored)
    assert shape(project.workspace) == before
    assert not undo.recover(project.workspace, stored)


def test_what_is_applied_is_what_was_shown(project: Project, stored: Stored) -> None:
    (Path(stored.files) / "file").write_text("shown\n")
    with changes.taken(stored) as snapshot:
        assert b"+shown" in patch.patch(snapshot)
        (Path(stored.files) / "file").write_text("exchanged\n")
        apply.apply(project, stored, snapshot, snapshot.changes)
    assert (Path(project.workspace) / "file").read_text() == "shown\n"


def test_a_link_in_place_of_a_directory_shows_nothing_of_the_host(stored: Stored, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "private/run.sh").write_text("the host's secret")
    (Path(stored.files) / "src/run.sh").unlink()
    (Path(stored.files) / "src").rmdir()
    (Path(stored.files) / "src").symlink_to(tmp_path / "private")
    with changes.taken(stored) as snapshot:
        assert b"the host's secret" not in patch.patch(snapshot)
        assert {(change.path, change.kind) for change in snapshot.changes} == {
            ("src", "added"),
            ("src/run.sh", "deleted"),
        }


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_directory_that_cannot_be_listed_is_not_empty(stored: Stored) -> None:
    (Path(stored.files) / "src").chmod(0)
    with pytest.raises(WorkspaceError, match="cannot be listed"), changes.taken(stored):
        pass
    (Path(stored.files) / "src").chmod(0o755)


def cloned(project: Project, home: Path) -> Stored:
    materialise(project, "clone", "fix", home=str(home))
    found = store.load(project, "fix")
    assert found is not None
    return found


def commit(stored: Stored, git: Git, text: str = "done") -> None:
    (Path(stored.files) / "work").write_text(text)
    git(Path(stored.files), "add", "-A")
    git(Path(stored.files), "commit", "-qm", text)


def test_a_clones_branch_comes_back(project: Project, home: Path, git: Git) -> None:
    found, place = cloned(project, home), Path(project.workspace)
    commit(found, git)
    before, head = shape(project.workspace), git(place, "rev-parse", "HEAD")
    assert [
        line.split(" ", 1)[1]
        for line in clone.commits(found.files, found.branch, found.commit, home=str(home))
    ] == ["done"]
    old, new = clone.bring_back(found.files, repository.find(str(place)), found.branch, home=str(home))
    assert (old, new) == ("", git(place, "rev-parse", "cloister/fix").strip())
    assert git(place, "show", "cloister/fix:work") == "done"
    git(place, "fsck", "--strict")
    after = {name: value for name, value in shape(project.workspace).items() if not name.startswith(".git/")}
    assert after == {name: value for name, value in before.items() if not name.startswith(".git/")}
    assert git(place, "rev-parse", "HEAD") == head
    commit(found, git, "more")
    assert clone.bring_back(found.files, repository.find(str(place)), found.branch, home=str(home))[0] == new


def test_a_branch_of_the_users_is_not_overwritten(project: Project, home: Path, git: Git) -> None:
    found, place = cloned(project, home), Path(project.workspace)
    commit(found, git)
    git(place, "branch", "cloister/fix", git(place, "commit-tree", "-m", "mine", "HEAD^{tree}").strip())
    into = repository.find(str(place))
    with pytest.raises(RepositoryError, match="has commits that the sandbox's has not"):
        clone.bring_back(found.files, into, found.branch, home=str(home))
    clone.bring_back(found.files, into, found.branch, home=str(home), force=True)
    assert git(place, "show", "cloister/fix:work") == "done"
    git(place, "checkout", "-q", "-f", "cloister/fix")
    with pytest.raises(RepositoryError, match="is checked out"):
        clone.bring_back(found.files, into, found.branch, home=str(home), force=True)


def test_a_history_that_would_plant_something_is_refused(project: Project, home: Path, git: Git) -> None:
    """A tree with `.git` in it: git's own check refuses it on the way in."""
    found, place = cloned(project, home), Path(project.workspace)
    files = Path(found.files)
    (files / "evil").write_text("[core]\n\tfsmonitor = touch /tmp/x\n")
    blob = git(files, "hash-object", "-w", "evil").strip()
    inner = subprocess.run(
        ["git", "mktree"],
        cwd=files,
        input=f"100644 blob {blob}\tconfig\n",
        text=True,
        capture_output=True,
        check=True,
    ).stdout.strip()
    raw = b"40000 .git\0" + bytes.fromhex(inner)
    outer = subprocess.run(
        ["git", "hash-object", "-t", "tree", "-w", "--stdin", "--literally"], cwd=files, input=raw, capture_output=True, check=True
    ).stdout.decode().strip()  # fmt: skip
    git(
        files,
        "update-ref",
        "refs/heads/cloister/fix",
        git(files, "commit-tree", "-p", "HEAD", "-m", "x", outer).strip(),
    )
    with pytest.raises(RepositoryError, match="fetch"):
        clone.bring_back(found.files, repository.find(str(place)), found.branch, home=str(home))
    assert git(place, "branch", "--list", "cloister/*") == ""


def test_a_clone_that_borrows_from_another_repository_is_refused(
    project: Project, home: Path, git: Git, tmp_path: Path
) -> None:
    """Else the user's git would bring objects of a repository that the sandbox must not read."""
    found = cloned(project, home)
    git(tmp_path, "init", "-q", "private")
    for name, target in (
        ("objects/info/alternates", None),
        ("objects/pack", tmp_path / "private/.git/objects/pack"),
    ):
        path = Path(found.files) / ".git" / name
        if target is None:
            path.write_text(str(tmp_path / "private/.git/objects"))
        else:
            path.rename(path.with_name("away"))
            path.symlink_to(target)
        with pytest.raises(RepositoryError):
            clone.bring_back(found.files, repository.find(project.workspace), found.branch, home=str(home))
        path.unlink()


def test_refs_that_are_links_are_refused(project: Project, home: Path, git: Git, tmp_path: Path) -> None:
    """In the user's repository, which a bound sandbox may have written: git would write through them."""
    found = cloned(project, home)
    commit(found, git)
    victim = tmp_path / "victim"
    victim.mkdir()
    (Path(project.workspace) / ".git/refs/heads/cloister").symlink_to(victim)
    with pytest.raises(RepositoryError, match="symbolic link"):
        clone.bring_back(found.files, repository.find(project.workspace), found.branch, home=str(home))
    assert os.listdir(victim) == []
