"""The copy of a project: what comes along, what stays out, and what a hostile project cannot make it do."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from cloister.depaudit import project_copy
from cloister.errors import WorkspaceError


@pytest.fixture
def project(tmp_path: Path) -> Path:
    made = tmp_path / "project"
    made.mkdir()
    return made


def copied(project: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """The copy's files (links as "-> target"), without its .git, and the notes."""
    target = project.parent / "copy"
    notes = project_copy.copy(str(project), str(target), home=str(project.parent / "home"))
    found = {}
    for directory, names, files in os.walk(target):
        names[:] = [name for name in names if name != ".git"]
        for name in files + [name for name in names if os.path.islink(f"{directory}/{name}")]:
            path = Path(directory, name)
            found[str(path.relative_to(target))] = (
                f"-> {path.readlink()}" if path.is_symlink() else path.read_text()
            )
    return found, notes


def write(project: Path, **files: str) -> None:
    for name, text in files.items():
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_without_git_everything_comes_but_packages_and_secrets(project: Path) -> None:
    write(
        project,
        **{
            "a.txt": "a",
            "sub/b.txt": "b",
            "node_modules/x.js": "",
            ".env": "S=1",
            ".env.example": "S=",
            "key.pem": "-----BEGIN PRIVATE KEY-----",
        },
    )
    write(project, **{".ssh/config": "", "sub/.npmrc": "a=1\n//r.example/:_authToken=x\n_password=y\n"})
    found, notes = copied(project)
    assert found == {"a.txt": "a", "sub/b.txt": "b", ".env.example": "S=", "sub/.npmrc": "a=1\n"}
    (note,) = notes
    assert set(note.partition(": ")[2].split(", ")) == {".env", ".ssh", "key.pem"}


def test_with_git_only_what_it_tracks_or_would_track(project: Path) -> None:
    write(
        project,
        **{
            ".gitignore": "big/\n*.log\n",
            "a.txt": "a",
            "new.txt": "n",
            "big/x": "x",
            "y.log": "",
            "vendor/v.js": "v",
        },
    )
    for command in (["init", "-q"], ["add", ".gitignore", "a.txt", "vendor"]):
        subprocess.run(["git", *command], cwd=project, check=True)
    found, _ = copied(project)
    assert found == {".gitignore": "big/\n*.log\n", "a.txt": "a", "new.txt": "n", "vendor/v.js": "v"}


def test_a_hostile_repository_runs_nothing(project: Path) -> None:
    """The control: git itself runs the program that the repository names."""
    write(project, **{"a.txt": "a", "evil.sh": f"#!/bin/sh\ntouch {project.parent}/ran\n"})
    (project / "evil.sh").chmod(0o755)
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    subprocess.run(["git", "add", "a.txt"], cwd=project, check=True)
    subprocess.run(["git", "config", "core.fsmonitor", str(project / "evil.sh")], cwd=project, check=True)
    found, _ = copied(project)
    assert "a.txt" in found
    assert not (project.parent / "ran").exists()
    subprocess.run(["git", "ls-files", "--others"], cwd=project, check=False, capture_output=True)
    subprocess.run(["git", "status"], cwd=project, check=False, capture_output=True)
    assert (project.parent / "ran").exists()


def test_links_pipes_and_modes(project: Path) -> None:
    (project.parent / "secret").write_text("sesame")
    write(project, **{"run.sh": "#!/bin/sh\n"})
    (project / "run.sh").chmod(0o4775)
    (project / "link").symlink_to("../secret")
    (project / "directory").symlink_to(project.parent)
    os.mkfifo(project / "pipe")
    found, _ = copied(project)
    assert found == {"run.sh": "#!/bin/sh\n", "link": "-> ../secret", "directory": f"-> {project.parent}"}
    assert (project.parent / "copy/run.sh").stat().st_mode & 0o7777 == 0o755


def test_the_copys_repository_is_new_and_usable(project: Path) -> None:
    write(project, **{"a.txt": "a"})
    copied(project)
    copy = project.parent / "copy"
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", "status", "--short"], cwd=copy, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "?? a.txt\n")


@pytest.mark.parametrize(("limit", "value"), [("FILES_LIMIT", 2), ("BYTES_LIMIT", 2)])
def test_a_project_that_is_too_large_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(project_copy, limit, value)
    write(project, a="a", b="b", c="c")
    with pytest.raises(WorkspaceError, match="too large to be copied"):
        copied(project)
