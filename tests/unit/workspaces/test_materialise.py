"""Private copies and clones: what goes in, what does not, and what is refused."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from cloister.config.directories import Project
from cloister.errors import CloisterError, RepositoryError, UsageError, WorkspaceError
from cloister.workspaces import git as host_git
from cloister.workspaces import store
from cloister.workspaces.materialise import materialise
from tests.unit.workspaces.conftest import Git


def names_in(directory: str | Path) -> set[str]:
    found = {
        os.path.relpath(os.path.join(where, name), directory)
        for where, _, names in os.walk(directory)
        for name in names
    }
    return {name for name in found if not name.startswith(".git/")}


def test_bind_is_the_project_itself(project: Project, home: Path) -> None:
    assert materialise(project, "bind", "main", home=str(home)) == project.workspace
    assert not os.path.exists(project.state)


def test_a_volume_holds_the_users_files_and_no_secret(project: Project, home: Path, git: Git) -> None:
    said: list[str] = []
    made = Path(materialise(project, "volume", "main", home=str(home), tell=said.append))
    assert names_in(made) == {"file", "src/run.sh", ".gitignore", "link", "new"}
    assert (made / "file").read_text() == "one\ntwo\nthree\nfour\n"
    assert os.readlink(made / "link") == "src/run.sh"
    assert os.access(made / "src/run.sh", os.X_OK)
    assert git(made, "log", "--format=%s") == "second\nfirst\n"
    assert git(made, "branch", "--show-current") == "main\n"
    assert git(made, "status", "--porcelain") == " M file\n D gone\n?? new\n"
    assert "secret" in said[0]
    assert ".env" in said[0]
    everything = b"".join(path.read_bytes() for path in made.rglob("*") if path.is_file())
    assert b"s3cr3t" not in everything, "neither the masked file nor the address's password"
    assert git(made, "remote", "get-url", "origin") == "https://forge.example.test/a/b.git\n"


def test_unmask_lets_a_secret_in(project: Project, home: Path) -> None:
    made = Path(materialise(project, "volume", "main", home=str(home), unmask=[".env"]))
    assert (made / ".env").exists()


def test_a_committed_secret_is_left_out_and_no_change(project: Project, home: Path, git: Git) -> None:
    place = Path(project.workspace)
    git(place, "add", "-f", ".env")
    git(place, "commit", "-qm", "oops")
    for kind in ("volume", "clone"):
        said: list[str] = []
        made = Path(materialise(project, kind, kind, home=str(home), tell=said.append))
        assert not (made / ".env").exists()
        assert ".env" not in git(made, "status", "--porcelain")
        assert any("the history has them" in one for one in said)


def test_a_clone_begins_at_the_last_commit(project: Project, home: Path, git: Git) -> None:
    said: list[str] = []
    made = Path(materialise(project, "clone", "fix", home=str(home), tell=said.append))
    assert git(made, "branch", "--show-current") == "cloister/fix\n"
    assert git(made, "status", "--porcelain") == ""
    assert (made / "file").read_text() == "one\ntwo\nthree\n"
    assert any("not committed" in one for one in said)
    assert git(made, "rev-parse", "HEAD") == git(Path(project.workspace), "rev-parse", "HEAD")


def test_nothing_is_shared_with_the_repository(project: Project, home: Path, git: Git) -> None:
    """Rule 2 of clone.py: no hard link, no alternate."""
    git(Path(project.workspace), "gc", "-q")
    made = Path(materialise(project, "clone", "fix", home=str(home)))
    for path in made.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert path.stat().st_nlink == 1, path
    assert not (made / ".git/objects/info/alternates").exists()


def test_it_is_made_once(project: Project, home: Path) -> None:
    made = Path(materialise(project, "volume", "main", home=str(home)))
    (made / "new").write_text("the agent's")
    assert materialise(project, "volume", "main", home=str(home)) == str(made)
    assert (made / "new").read_text() == "the agent's"
    with pytest.raises(WorkspaceError, match="kind 'volume' already") as refused:
        materialise(project, "clone", "main", home=str(home))
    assert "cloister rm --volumes main" in refused.value.resolution


def test_an_interrupted_seed_is_made_anew(project: Project, home: Path) -> None:
    half = Path(store.directory(project, "main")) / "files"
    half.mkdir(parents=True)
    (half / "half").touch()
    made = Path(materialise(project, "volume", "main", home=str(home)))
    assert not (made / "half").exists()


def test_without_a_repository_what_tools_make_stays_behind(tmp_path: Path, home: Path) -> None:
    place = tmp_path / "plain"
    for name in ("a/b", "node_modules/x/y", ".env", "c"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(name)
    (place / "out").symlink_to("/etc")
    os.mkfifo(place / "pipe")
    plain = Project(workspace=str(place), state=str(tmp_path / "state"))
    made = Path(materialise(plain, "volume", "main", home=str(home)))
    assert names_in(made) | {"out"} == {"a/b", "c", "out"}
    assert os.readlink(made / "out") == "/etc", "a link stays a link"


def test_without_git_on_the_host(project: Project, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_git, "_PLACES", ("/nonexistent",))
    made = Path(materialise(project, "volume", "main", home=str(home)))
    assert {"file", "new", "build/out"} <= names_in(made)
    assert not (made / ".git").exists()
    with pytest.raises(CloisterError, match="git is not installed"):
        materialise(project, "clone", "other", home=str(home))
    assert store.load(project, "other") is None
    assert not os.path.exists(store.directory(project, "other"))


def test_sockets_and_pipes_are_never_opened(project: Project, home: Path) -> None:
    os.mkfifo(f"{project.workspace}/pipe")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(f"{project.workspace}/socket")
        made = materialise(project, "volume", "main", home=str(home))
    assert not {"pipe", "socket"} & names_in(made)


def test_a_link_out_of_the_project_is_not_followed(project: Project, home: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/private").write_text("private")
    os.symlink(tmp_path / "elsewhere", f"{project.workspace}/docs")
    made = Path(materialise(project, "volume", "main", home=str(home)))
    assert (made / "docs").is_symlink()


def test_what_is_no_repository_cannot_be_cloned(tmp_path: Path, home: Path) -> None:
    place = tmp_path / "plain"
    place.mkdir()
    plain = Project(workspace=str(place), state=str(tmp_path / "state"))
    with pytest.raises(RepositoryError, match="not the top of a git repository") as refused:
        materialise(plain, "clone", "fix", home=str(home))
    assert "git init" in refused.value.resolution


def test_a_bare_repository(tmp_path: Path, home: Path, git: Git) -> None:
    git(tmp_path, "init", "-q", "--bare", "bare")
    with pytest.raises(RepositoryError, match="bare repository"):
        materialise(
            Project(workspace=f"{tmp_path}/bare", state=f"{tmp_path}/state"), "clone", "x", home=str(home)
        )


def test_a_repository_without_a_commit(tmp_path: Path, home: Path, git: Git) -> None:
    git(tmp_path, "init", "-q", "empty")
    empty = Project(workspace=f"{tmp_path}/empty", state=f"{tmp_path}/state")
    with pytest.raises(RepositoryError, match="no commit yet"):
        materialise(empty, "clone", "x", home=str(home))
    said: list[str] = []
    materialise(empty, "volume", "x", home=str(home), tell=said.append)
    assert "no history" in said[0]


def test_a_detached_head(project: Project, home: Path, git: Git) -> None:
    git(Path(project.workspace), "checkout", "-q", "--detach", "HEAD")
    for kind in ("clone", "volume"):
        made = Path(materialise(project, kind, kind, home=str(home)))
        assert git(made, "branch", "--show-current") == f"cloister/{kind}\n"


def test_a_linked_work_tree_can_be_cloned(project: Project, home: Path, git: Git, tmp_path: Path) -> None:
    git(Path(project.workspace), "worktree", "add", "-q", "-b", "other", str(tmp_path / "other"))
    linked = Project(workspace=str(tmp_path / "other"), state=str(tmp_path / "state2"))
    made = Path(materialise(linked, "clone", "fix", home=str(home)))
    assert git(made, "log", "--format=%s") == "second\nfirst\n"


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "-rf",
        "a/b",
        "",
        ".",
        "..",
        "x" * 65,
        "ä",
        "a b",
        "a\n",
        "x.lock",
        "a..b",
        ".a",
        "HEAD",
        "a\0",
        "x.",
    ],
)
def test_names_that_are_none(name: str, project: Project, home: Path) -> None:
    """ATTACKS CFG-3."""
    with pytest.raises(UsageError) as refused:
        materialise(project, "volume", name, home=str(home))
    assert refused.value.brief.isascii()
    assert "choose another name" in refused.value.resolution
    assert not os.path.exists(project.state)
