"""Sandboxes with a workspace of their own: what they see, what comes back, and what never does."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.world import Cloister

pytestmark = pytest.mark.sandbox


def git(cloister: Cloister, *arguments: str) -> str:
    """The host's git in the project, as the user."""
    done = subprocess.run(
        [*cloister.identity.prefix, "git", *arguments], cwd=cloister.project, env=cloister.environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done
    return done.stdout


@pytest.fixture
def project(cloister: Cloister) -> Path:
    """A repository with something in progress, and a secret."""
    cloister.write(cloister.home / ".gitconfig", "[user]\n\tname = a\n\temail = a@b.test\n")
    git(cloister, "init", "-q", "-b", "main")
    for name, text in {"file": "one\n", ".gitignore": "*.log\n", "src/x": "x\n"}.items():
        cloister.write(cloister.project / name, text)
    git(cloister, "add", "-A")
    git(cloister, "commit", "-qm", "one")
    cloister.write(cloister.project / "file", "in progress\n")
    cloister.write(cloister.project / ".env", "TOKEN=s3cr3t\n")
    return cloister.project


def on_disk(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_a_volume_there_and_back(cloister: Cloister, project: Path) -> None:
    cloister.configure('[sandbox]\nworkspace = "volume"\n')
    before = on_disk(project)
    script = """
    set -e; cat file; pwd; git log --format=%s; [ ! -e .env ]; grep -r s3cr3t . && exit 1
    echo done > file; echo x > made; rm src/x; mkdir .vscode; echo evil > .vscode/tasks.json; ln -s /etc/passwd out
    mkdir -p sub/.git; printf '[core]\\n\\tfsmonitor = touch /tmp/owned\\n' > sub/.git/config
    git config core.fsmonitor evil; mkdir -p .git/hooks; printf '#!/bin/sh\\ntouch /tmp/owned\\n' > .git/hooks/post-index-change; chmod 755 .git/hooks/post-index-change
    git commit -qam done 2>&-; mkfifo pipe"""
    done = cloister.sh(script)
    assert done.code == 0, done
    assert done.out == f"in progress\n{project}\none\n"
    assert "left out" in done.err
    assert on_disk(project) == before, "nothing of the host's project was mounted"
    assert cloister.sh("cat made").out == "x\n", "it stays"
    shown = cloister("diff")
    assert "+done\n" in shown.out
    applied = cloister("apply", "--yes")
    assert applied.code == 0, applied
    for line in (
        "left out: .vscode/tasks.json: your tools act on '.vscode' (--include-protected)", "refused: out: it is a link to an absolute path",
        "refused: sub/.git/config: git would take it for a repository", "refused: pipe: it is a device, a pipe or a socket",
    ):  # fmt: skip
        assert line in applied.out, applied
    after = on_disk(project)
    assert {name: after[name] for name in after if not name.startswith(".git/")} == {
        ".env": b"TOKEN=s3cr3t\n", ".gitignore": b"*.log\n", "file": b"done\n", "made": b"x\n",
    }  # fmt: skip
    assert {name for name in after if name.startswith(".git/")} == {
        name for name in before if name.startswith(".git/")
    }
    owner = project.stat()
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in project.rglob("*")} == {
        (owner.st_uid, owner.st_gid)
    }
    assert git(cloister, "status", "--porcelain").splitlines() == [
        " M file",
        " D src/x",
        "?? .env",
        "?? made",
    ]
    assert not os.path.exists("/tmp/owned")


def test_a_clone_comes_back_as_a_branch(cloister: Cloister, project: Path) -> None:
    cloister.configure('[sandbox]\nworkspace = "clone"\n')
    before = git(cloister, "rev-parse", "HEAD")
    script = """
    set -e; cat file; git branch --show-current; echo two >> file; git commit -qam two; git commit -q --allow-empty -m three
    git config core.fsmonitor evil; mkdir -p .git/hooks; printf '#!/bin/sh\\ntouch /tmp/owned\\n' > .git/hooks/reference-transaction; chmod 755 .git/hooks/reference-transaction
    echo /etc > .git/objects/info/x"""
    done = cloister.sh(script)
    assert done.code == 0, done
    assert done.out == "one\ncloister/main\n"
    applied = cloister("apply", "--yes")
    assert applied.code == 0, applied
    assert "+two\n" in applied.out
    assert git(cloister, "log", "--format=%s", "cloister/main") == "three\ntwo\none\n"
    assert git(cloister, "rev-parse", "HEAD") == before
    assert (project / "file").read_text() == "in progress\n"
    owner = project.stat()
    assert {path.lstat().st_uid for path in (project / ".git").rglob("*")} == {owner.st_uid}
    git(cloister, "merge", "-q", "--no-edit", "-s", "ours", "cloister/main")
    assert not os.path.exists("/tmp/owned")


def test_cp_in_and_out(cloister: Cloister, project: Path) -> None:
    cloister.write(cloister.home / "given", "from the host\n")
    assert cloister.run("true").code == 0
    assert cloister("cp", str(cloister.home / "given"), "main:~/in").code == 0
    done = cloister.sh(
        "cat ~/in; echo out > ~/out; mkdir ~/d; ln -s /etc/passwd ~/d/link; ln -s / ~/root; echo more >> ~/in"
    )
    assert (done.code, done.out) == (0, "from the host\n"), done
    assert cloister("cp", "main:~/out", str(cloister.home / "got")).code == 0
    assert (cloister.home / "got").read_text() == "out\n"
    assert (cloister.home / "got").stat().st_uid == cloister.identity.uid
    refused = cloister("cp", "main:~/root/etc/passwd", str(cloister.home / "passwd"))
    assert refused.code == 125
    assert "symbolic link" in refused.err
    assert not (cloister.home / "passwd").exists()
    assert cloister("cp", "main:~/d", str(cloister.home / "d")).code == 1
    assert os.listdir(cloister.home / "d") == []


def test_the_current_directory_need_not_be_in_the_copy(cloister: Cloister, project: Path) -> None:
    cloister.configure('[sandbox]\nworkspace = "clone"\n')
    only = cloister.directory(project / "only/here")
    assert cloister.run("pwd", cwd=only).out == f"{project}\n"
    assert cloister.run("pwd", cwd=project / "src").out == f"{project}/src\n"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        ("rm -rf .git", "is not the top of a git repository"),
        ("rm -rf .git; git init -q", "has no commit yet"),
        ("rm -rf .git; git init -q --bare x; mv x/* .", "is a bare repository"),
        ("mv .git ../g; ln -s ../g .git", "symbolic link"),
        ("echo /elsewhere > .git/objects/info/alternates", "borrows objects"),
    ],
)
def test_what_cannot_be_cloned(cloister: Cloister, project: Path, make: str, said: str) -> None:
    subprocess.run(
        [*cloister.identity.prefix, "sh", "-c", make], cwd=project, check=True, env=cloister.environment()
    )
    cloister.configure('[sandbox]\nworkspace = "clone"\n')
    done = cloister.run("true")
    assert done.code == 125, done
    assert said in done.err
    assert "→" in done.err
    assert not list(cloister.home.glob(".local/state/cloister/projects/*/workspaces/main"))


def test_rm_removes_what_a_run_has_left(cloister: Cloister) -> None:
    """A sandbox that ended at once has no name in `ls`, but a workspace of its own, and perhaps work in it."""
    cloister.write(cloister.project / "file", "one\n")
    cloister.configure('[sandbox]\nworkspace = "volume"\n')
    assert cloister.sh("echo two > file").code == 0
    kept = cloister("rm", "--volumes")
    assert (kept.code, "has changes, which would be lost" in kept.err) == (2, True), kept
    assert cloister("diff", "--names").out == "changed  file\n"
    assert cloister("rm", "--volumes", "--force").code == 0
    again = cloister("rm", "--volumes", "--force")
    assert (again.code, "there is no sandbox 'main'" in again.err) == (125, True), again
    assert not list(cloister.home.glob(".local/state/cloister/projects/*/workspaces"))
