"""A user's project under git, and what they would type in it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cloister.config.directories import Project

Git = Callable[..., str]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    place = tmp_path / "home"
    place.mkdir()
    return place


@pytest.fixture
def git(home: Path) -> Git:
    """Plain git in a directory: its output; a failure fails the test."""

    def run(where: Path, *arguments: str) -> str:
        identity = {
            f"GIT_{who}_{what}": value
            for who in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", "a"), ("EMAIL", "a@b.test"))
        }
        done = subprocess.run(
            ["git", "-c", "init.defaultBranch=main", *arguments],
            cwd=where,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(home),
                "GIT_CONFIG_NOSYSTEM": "1",
                "LC_ALL": "C.UTF-8",
                **identity,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done
        return done.stdout

    return run


@pytest.fixture
def project(tmp_path: Path, git: Git) -> Project:
    """A repository with two commits, an ignored and a secret file, and something in progress."""
    place = tmp_path / "project"
    (place / "src").mkdir(parents=True)
    for name, text in {
        "file": "one\ntwo\nthree\n", "src/run.sh": "#!/bin/sh\n", "gone": "x\n", ".gitignore": "build/\n*.log\n", "secret.key": "PRIVATE KEY\n",
    }.items():  # fmt: skip
        (place / name).write_text(text)
    (place / "src/run.sh").chmod(0o755)
    (place / "link").symlink_to("src/run.sh")
    git(place, "init", "-q")
    git(place, "remote", "add", "origin", "https://me:s3cr3t@forge.example.test/a/b.git")
    git(place, "add", "file", "src", "gone", ".gitignore", "link")
    git(place, "commit", "-qm", "first")
    git(place, "commit", "-q", "--allow-empty", "-m", "second")
    (place / "build").mkdir()
    (place / "build/out").write_text("made")
    (place / ".env").write_text("TOKEN=s3cr3t\n")
    (place / "file").write_text("one\ntwo\nthree\nfour\n")
    (place / "new").write_text("untracked\n")
    (place / "gone").unlink()
    state = tmp_path / "state"
    return Project(workspace=str(place), state=str(state))
