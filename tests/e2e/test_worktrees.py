"""A sandbox in a work tree that shares its repository: git works, and nothing is planted there (ATTACKS FS-1, FS-5).

The attacks are tried from inside; the control shows that the same script succeeds where nothing is held.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.world import Cloister

pytestmark = pytest.mark.sandbox

# Prints what it could plant. $COMMON is the shared git directory, $OWN this work tree's directory in it.
ATTACKS = """
for name in config config.worktree commondir HEAD index info/exclude info/attributes hooks/pre-commit hooks/post-checkout \
    modules/x/config worktrees/other/HEAD worktrees/other/gitdir worktrees/other/index worktrees/evil/HEAD; do
    path=$COMMON/$name
    { mkdir -p $(dirname $path) && echo evil >> $path; } 2>/dev/null && echo "append $name"
    { echo evil > $COMMON/x.tmp && mv $COMMON/x.tmp $path; } 2>/dev/null && echo "rename $name"
    rm -f $COMMON/x.tmp
    [ -e $path ] && ln -f $path link 2>/dev/null && echo "link $name"
    [ -e $path ] && rm -f $path 2>/dev/null && [ ! -e $path ] && echo "unlink $name"
done
for name in gitdir commondir config.worktree modules/x/config; do
    { mkdir -p $(dirname $OWN/$name) && echo evil >> $OWN/$name; } 2>/dev/null && echo "append own $name"
    { echo evil > $OWN/x.tmp && mv $OWN/x.tmp $OWN/$name; } 2>/dev/null && echo "rename own $name"
    rm -f $OWN/x.tmp
done
for name in hooks info worktrees worktrees/other modules; do
    mv $COMMON/$name $COMMON/$name.away 2>/dev/null && echo "move $name"
    rm -rf $COMMON/$name 2>/dev/null && echo "remove $name"
    mkdir -p $COMMON/$name/new 2>/dev/null && echo "new in $name"
    # A placeholder is memory: whoever changes its mode writes nothing of the host's.
    [ $name != modules ] && chmod 777 $COMMON/$name 2>/dev/null && echo "chmod $name"
done
mv $COMMON $COMMON.away 2>/dev/null && echo "move the common directory"
mv $OWN $OWN.away 2>/dev/null && echo "move our own"
echo "gitdir: $PWD/evil" > .git 2>/dev/null && echo "the pointer"
git config core.fsmonitor evil 2>/dev/null && echo "git config"
git config --worktree core.fsmonitor evil 2>/dev/null && echo "git config --worktree"
git worktree add ../evil 2>/dev/null && echo "git worktree add"
echo control
"""


def git(cloister: Cloister, where: Path, *arguments: str) -> str:
    """The host's git, as the user."""
    done = subprocess.run(
        [*cloister.identity.prefix, "git", *arguments],
        cwd=where,
        env={**cloister.environment(), "GIT_CONFIG_NOSYSTEM": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done
    return done.stdout


@pytest.fixture
def trees(cloister: Cloister) -> tuple[Path, Path, Path]:
    """The main work tree, and two that are linked; the first of them is the sandbox's."""
    main, mine, other = (
        cloister.project,
        cloister.home / "project.worktrees/mine",
        cloister.home / "project.worktrees/other",
    )
    cloister.write(cloister.home / ".gitconfig", "[user]\n\tname = a\n\temail = a@b.test\n")
    git(cloister, main, "init", "-q", "-b", "main")
    cloister.write(main / "file", "one\n")
    git(cloister, main, "add", "file")
    git(cloister, main, "commit", "-qm", "one")
    git(cloister, main, "remote", "add", "origin", "https://me:s3cr3t@forge.example.test/a/b.git")
    git(cloister, main, "worktree", "add", "-q", "-b", "mine", str(mine))
    git(cloister, main, "worktree", "add", "-q", "-b", "other", str(other))
    cloister.write(other / "private", "of another agent")
    cloister.write(main / "uncommitted", "of the user")
    return main, mine, other


def planted(directory: Path) -> dict[str, object]:
    """What decides what git executes, and what is not this work tree's."""
    left_out = ("objects", "refs", "logs", "worktrees/mine", "packed-refs")
    found: dict[str, object] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if not name.startswith(left_out):
            found[name] = path.read_bytes() if path.is_file() else "directory"
    return found


def test_git_works_there(cloister: Cloister, trees: tuple[Path, Path, Path]) -> None:
    main, mine, _ = trees
    script = """set -e
    echo two > file; git add file; git commit -qm two; git log --format=%s; git status --porcelain
    git branch extra; git branch -q -D extra; git tag t; echo x > file; git stash -q; git stash pop -q; git checkout -q -- file
    git checkout -q -b agent/work; git commit -q --allow-empty -m three; git rebase -q mine; git checkout -q mine; git merge -q agent/work
    git worktree list | wc -l; git gc --auto; git gc -q; git fsck --strict --no-dangling; git pack-refs --all; git log --format=%s; git remote get-url origin"""
    done = cloister.sh(script, cwd=mine)
    assert done.code == 0, done
    assert done.out == "two\none\n3\nthree\ntwo\none\nhttps://forge.example.test/a/b.git\n"
    assert git(cloister, main, "log", "--format=%s", "mine") == "three\ntwo\none\n"
    assert git(cloister, main, "status", "--porcelain") == "?? uncommitted\n"
    git(cloister, main, "fsck", "--strict")
    assert len(git(cloister, main, "worktree", "list").splitlines()) == 3


def test_nothing_is_planted_in_the_shared_directory(
    cloister: Cloister, trees: tuple[Path, Path, Path]
) -> None:
    main, mine, _ = trees
    common = main / ".git"
    before = planted(common)
    own = {name: (common / "worktrees/mine" / name).read_text() for name in ("gitdir", "commondir")}
    done = cloister.sh(f"COMMON={common} OWN={common}/worktrees/mine\n{ATTACKS}", cwd=mine)
    assert done.out.splitlines()[-1] == "control", done
    assert done.out.splitlines()[:-1] == [], done
    assert planted(common) == before
    assert {name: (common / "worktrees/mine" / name).read_text() for name in own} == own
    git(cloister, main, "status")


def test_the_same_succeeds_where_nothing_is_held(cloister: Cloister, trees: tuple[Path, Path, Path]) -> None:
    main, mine, _ = trees
    common = main / ".git"
    script = f"COMMON={common} OWN={common}/worktrees/mine\n{ATTACKS}"
    done = subprocess.run(
        ["/bin/sh", "-c", script],
        cwd=mine,
        capture_output=True,
        text=True,
        env=cloister.environment(),
        check=False,
    )
    breaches = done.stdout.splitlines()
    for one in (
        "append config",
        "rename hooks/pre-commit",
        "append worktrees/other/gitdir",
        "append own commondir",
        "move hooks",
    ):
        assert one in breaches, breaches


def test_other_work_trees_are_not_seen(cloister: Cloister, trees: tuple[Path, Path, Path]) -> None:
    main, mine, other = trees
    done = cloister.sh(
        f"cat {other}/private {main}/uncommitted {main}/file 2>/dev/null; ls -A {main} {other.parent}; cat {main}/.git/config",
        cwd=mine,
    )
    assert done.out.startswith(f"{main}:\n.git\n\n{other.parent}:\nmine\n"), done
    assert "another agent" not in done.out
    assert "s3cr3t" not in done.out


def test_two_work_trees_at_once(cloister: Cloister, trees: tuple[Path, Path, Path]) -> None:
    """Both hold the shared names; what one leaves stays held for the other."""
    main, mine, other = trees
    first = cloister.start(
        "run",
        "-C",
        str(mine),
        "--",
        "sh",
        "-c",
        "echo up; read -r go; COMMON=$1 OWN=$1/worktrees/mine\n" + ATTACKS,
        "-",
        str(main / ".git"),
    )
    assert first.stdout is not None
    assert first.stdin is not None
    assert first.stdout.readline() == "up\n"
    second = cloister.sh("git commit -q --allow-empty -m second && git log --format=%s", cwd=other)
    assert second.out == "second\none\n", second
    out, _ = first.communicate("go\n", timeout=60)
    assert out.splitlines() == ["control"]
    assert not (main / ".git/modules").exists(), "and nothing of ours stays"
    assert not (main / ".git/commondir").exists()


@pytest.mark.parametrize("forged", ["gitdir", "commondir"])
def test_a_forged_pointer_gives_no_other_repository(
    cloister: Cloister, trees: tuple[Path, Path, Path], forged: str
) -> None:
    """An agent that wrote `sub/.git`, or a git directory of its own, does not get another repository of the user's."""
    main, _, _ = trees
    victim = cloister.directory(cloister.home / "victim")
    git(cloister, victim, "init", "-q")
    cloister.write(victim / ".git/token", "s3cr3t")
    sub = cloister.directory(cloister.project / "sub")
    if forged == "gitdir":
        cloister.write(victim / ".git/worktrees/x/gitdir", "/elsewhere/.git\n")
        cloister.write(victim / ".git/worktrees/x/commondir", "../..\n")
        cloister.write(sub / ".git", f"gitdir: {victim}/.git/worktrees/x\n")
    else:
        cloister.write(main / ".git/worktrees/x/gitdir", f"{sub}/.git\n")
        cloister.write(main / ".git/worktrees/x/commondir", f"{victim}/.git\n")
        cloister.write(sub / ".git", f"gitdir: {main}/.git/worktrees/x\n")
    done = cloister.sh(f"cat {victim}/.git/token; echo end", cwd=sub)
    assert done.out == "end\n"
