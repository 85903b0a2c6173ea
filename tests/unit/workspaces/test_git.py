"""The host's git where a sandbox has written: what plain git executes, and ours does not (ATTACKS FS-5)."""

from __future__ import annotations

import os
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from cloister.errors import RepositoryError
from cloister.workspaces import git, repository, scratch

CASES: list[dict[str, Any]] = tomllib.loads(
    (Path(__file__).parents[2] / "cases/git_settings_that_execute.toml").read_text()
)["case"]


def environment(home: Path, **more: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"], "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C.UTF-8", "TERM": "xterm",
        "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b.test", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b.test",
        **more,
    }  # fmt: skip


def sh(script: str, where: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", script],
        cwd=where,
        env=environment(where.parent, **more),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    place = tmp_path / "repo"
    place.mkdir()
    done = sh("git init -q -b main; echo one > file; git add file; git commit -qm one", place)
    assert done.returncode == 0, done
    return place


def make_hostile(case: dict[str, Any], repo: Path, mark: Path) -> None:
    if "config" in case:
        with (repo / ".git/config").open("a") as file:
            file.write(case["config"].replace("\\n", "\n").replace("\\t", "\t").replace("$MARK", str(mark)))
    if "script" in case:
        sh("set -e\n" + case["script"], repo, MARK=str(mark))


def everything(repo: Path, home: Path) -> None:
    """Each way in which cloister uses git: to list, to compare, to check out, to give and to take."""
    found = repository.find(str(repo))
    with scratch.borrowing(found, home=str(home)) as ours:
        where = str(repo)
        git.run(ours, ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], work_tree=where)
        git.run(ours, ["status", "--porcelain=v2", "-z", "--untracked-files=all"], work_tree=where)
        git.run(ours, ["diff", "--no-ext-diff", "--no-textconv", "HEAD"], work_tree=where)
        git.run(ours, ["log", "-p", "--no-ext-diff", "--no-textconv", "--all"])
        git.run(ours, ["rev-list", "--all"])
        out = home / "checkout"
        out.mkdir()
        git.run(ours, ["read-tree", "-u", "--reset", "HEAD"], work_tree=str(out), index=str(home / "index"))
        git.run(ours, ["update-ref", "refs/heads/cloister/x", "HEAD"])
        fresh = home / "fresh"
        sh(f"git init -q --bare {shlex.quote(str(fresh))}", home)
        for name in ("objects", "refs"):
            assert (fresh / name).is_dir()
        with scratch.borrowing(
            repository.Repository(work_tree=str(home), git_directory=str(fresh), common=str(fresh)),
            home=str(home),
        ) as theirs:
            git.run(
                theirs,
                ["fetch", "-q", "--no-tags", f"file://{ours.git_directory}", "+refs/heads/main:refs/heads/x"],
            )


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_plain_git_executes_it(case: dict[str, Any], repo: Path, tmp_path: Path) -> None:
    """The control: without this, the test below would show nothing."""
    mark = tmp_path / "mark"
    make_hostile(case, repo, mark)
    plain = (
        case["plain"] if not case.get("terminal") else f"script -qec {shlex.quote(case['plain'])} /dev/null"
    )
    done = sh(plain, repo, MARK=str(mark), GIT_ALLOW_PROTOCOL="ext:file:ssh:git")
    assert mark.exists(), done


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_ours_does_not(case: dict[str, Any], repo: Path, tmp_path: Path) -> None:
    mark, home = tmp_path / "mark", tmp_path / "home"
    home.mkdir()
    make_hostile(case, repo, mark)
    mark.unlink(missing_ok=True)
    if case.get("refused") or case["name"] == "commondir":
        with pytest.raises(RepositoryError) as refused:
            everything(repo, home)
        assert refused.value.resolution
    else:
        everything(repo, home)
    assert not mark.exists()
