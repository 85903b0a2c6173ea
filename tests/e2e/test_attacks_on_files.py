"""An agent with several sessions, and a person who then uses git: no planting, no peeking (ATTACKS FS, AV-3).

Each attack is a list of sessions, each a script in a live sandbox. Afterwards the host's git is run wherever the agent
left something, and must not execute what the agent wrote. The control does the same without cloister, and breaches.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.test_files import make_repository
from tests.world import Cloister

pytestmark = pytest.mark.sandbox

EVIL = 'printf "[core]\\n\\trepositoryformatversion = 0\\n\\tbare = false\\n\\tfsmonitor = \\"touch $MARK;:\\"\\n"'
GOOD = 'printf "[core]\\n\\trepositoryformatversion = 0\\n\\tbare = false\\n"'
PRELUDE = f"""
git_directory() {{ mkdir -p $1/objects $1/refs/heads $1/hooks; echo 'ref: refs/heads/main' > $1/HEAD; }}
evil() {{ {EVIL}; }}
good() {{ {GOOD}; }}
hook() {{ mkdir -p $1; printf '#!/bin/sh\\ntouch %s\\n' $MARK > $1/post-index-change; chmod 755 $1/post-index-change; }}
"""


@dataclass(frozen=True, kw_only=True)
class Attack:
    """`before`: what the user has, made on the host. `sessions`: what the agent does. `where`: git runs there."""

    name: str
    sessions: tuple[str, ...]
    before: str = ""
    where: tuple[str, ...] = ("x",)


ATTACKS = (
    Attack(name="plain", sessions=("git_directory x/.git; evil > x/.git/config",)),
    Attack(name="plain hook", sessions=("git_directory x/.git; good > x/.git/config; hook x/.git/hooks",)),
    Attack(
        name="behind a false git directory",
        sessions=("git_directory y; git_directory y/x/.git; evil > y/x/.git/config",),
        where=("y/x",),
    ),
    Attack(
        name="the workspace itself as a git directory",
        sessions=("git_directory .; git_directory x/.git; evil > x/.git/config",),
    ),
    Attack(
        name="begun in one session, finished in the next",
        sessions=("mkdir -p x/.git; echo > x/.git/y", "git_directory x/.git; evil > x/.git/config"),
    ),
    Attack(
        name="objects are a file at first",
        sessions=(
            "mkdir -p x/.git/refs; cd x/.git; echo 'ref: refs/heads/main' > HEAD; echo > objects",
            "rm x/.git/objects; git_directory x/.git; evil > x/.git/config",
        ),
    ),
    Attack(
        name="a directory without write permission",
        sessions=(
            "git_directory x/.git; good > x/.git/config; rmdir x/.git/hooks; chmod 555 x/.git",
            "chmod 755 x/.git; hook x/.git/hooks; mkdir x/.git/e; evil > x/.git/e/config; echo e > x/.git/commondir;"
            "git_directory x/.git/e",
        ),
    ),
    Attack(
        name="a directory that cannot be listed",
        sessions=("git_directory y/x/.git; evil > y/x/.git/config; chmod 311 y",),
        where=("y/x",),
    ),
    Attack(
        name="hooks that cannot be listed",
        sessions=("git_directory x/.git; good > x/.git/config; hook x/.git/hooks; chmod 311 x/.git/hooks",),
    ),
    Attack(
        name="a comment that ends in a backslash",
        sessions=("git_directory x/.git; { good; echo '# \\'; evil | tail -n 1; } > x/.git/config",),
    ),
    Attack(
        name="a configuration that is longer than what is read",
        sessions=("git_directory x/.git; { yes '# filler' | head -c 5000000; echo; evil; } > x/.git/config",),
    ),
    Attack(
        name="another name for the configuration",
        sessions=("git_directory x/.git; good > x/.git/config; ln x/.git/config y", "evil > y"),
    ),
    Attack(
        name="another name for a pointer",
        sessions=(
            "git_directory y/.git; good > y/.git/config; mkdir x; echo 'gitdir: ../y/.git' > x/.git; ln x/.git name",
            "git_directory node_modules/z; evil > node_modules/z/config; echo 'gitdir: ../node_modules/z' > name",
        ),
    ),
    Attack(
        name="a pointer through a link",
        sessions=(
            "git_directory x/z; good > x/z/config; mkdir -p node_modules/a; git_directory node_modules/z;"
            "evil > node_modules/z/config; ln -s ../node_modules/a x/l; echo 'gitdir: l/../z' > x/.git",
        ),
    ),
    Attack(
        name="a common directory through a link",
        sessions=(
            "git_directory x/.git; good > x/.git/config; git_directory x/z; good > x/z/config; mkdir -p y/a;"
            "git_directory y/z; rm y/z/HEAD; evil > y/z/config; ln -s ../../y/a x/.git/l;"
            "echo l/../../z/ > x/.git/commondir; ln -s ../z x/.git/zz; echo l/../z > x/.git/commondir;"
            "git_directory x/.git/z; good > x/.git/z/config",
        ),
    ),
    Attack(
        name="a pointer with a NUL",
        sessions=(
            "mkdir -p x y; printf 'gitdir: a\\0b' > y/.git; git_directory node_modules/z; evil > node_modules/z/config;"
            "echo 'gitdir: ../node_modules/z' > x/.git",
        ),
    ),
    Attack(
        name="in a directory that tools make",
        sessions=("git_directory target/.git; evil > target/.git/config",),
        where=("target",),
    ),
    Attack(
        name="a name too long to keep",
        sessions=(
            "for d in a x z; do git_directory $d/.git; evil > $d/.git/config;"
            " hook $d/.git/hooks; touch $d/.git/hooks/$(printf %0255d 0); done",
        ),
        where=("a", "x", "z"),
    ),
    Attack(
        name="a protected directory that cannot be moved",
        sessions=(
            "for d in a x z; do git_directory $d/.git; evil > $d/.git/config;"
            " mkdir $d/.vscode; touch $d/.vscode/tasks.json; chmod 555 $d/.vscode; done",
        ),
        where=("a", "x", "z"),
    ),
    Attack(
        name="modules nested too deeply",
        before="make",
        sessions=(
            "mkdir -p .git/modules/$(printf 'a/%.0s' $(seq 1100)); git_directory x/.git; evil > x/.git/config",
        ),
    ),
    Attack(
        name="a link that is replaced",
        before="mkdir -p x; git_directory y/.git; good > y/.git/config; ln -s ../y/.git x/.git",
        sessions=("rm x/.git; git_directory x/.git; evil > x/.git/config",),
    ),
    Attack(
        name="hooks behind a link",
        before="git_directory x/.git; good > x/.git/config; rmdir x/.git/hooks; mkdir h; ln -s ../../h x/.git/hooks",
        sessions=("rm x/.git/hooks; hook x/.git/hooks; hook h",),
    ),
    Attack(
        name="a configuration behind a link",
        before="git_directory x/.git; good > c; ln -s ../../c x/.git/config",
        sessions=("rm x/.git/config; evil > x/.git/config; evil > c",),
    ),
    Attack(
        name="hooks whose parent is missing",
        before="git_directory x/.git; { good; echo '\thooksPath = ../tools/git/hooks'; } > x/.git/config",
        sessions=("hook tools/git/hooks",),
    ),
    Attack(
        name="a submodule in a directory of a tool",
        before="git init -q",
        sessions=(
            "git init -q node_modules/x; cd node_modules/x; git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x;"
            "evil > .git/config; cd ../..; git add -f node_modules/x",
        ),
        where=(".",),
    ),
    Attack(
        name="more directories than are looked at",
        before="git_directory x/.git; good > x/.git/config; rmdir x/.git/hooks",
        sessions=(
            "mkdir zz y; cd zz; seq 21000 | xargs mkdir; cd ../y; seq 21000 | xargs mkdir",
            "evil > x/.git/config; hook x/.git/hooks",
        ),
    ),
)


def on_host(cloister: Cloister, script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """What the user, or a tool of theirs, runs on the host."""
    return subprocess.run(
        [*cloister.identity.prefix, "/bin/bash", "-c", script],
        cwd=cwd,
        env={**cloister.environment(), "MARK": str(cloister.base / "home/mark"), "GIT_CONFIG_NOSYSTEM": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def use_git(cloister: Cloister, place: str) -> None:
    directory = cloister.project / place
    if directory.is_dir():
        on_host(cloister, "echo > file; git status; git add file; git reset -q; git checkout .", directory)


def remove_deep(cloister: Cloister) -> None:
    """Take away what shutil.rmtree, which recurses, cannot."""
    on_host(cloister, "rm -rf .git/modules", cloister.project)


def mark(cloister: Cloister) -> Path:
    return cloister.home / "mark"


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_git_of_the_host_executes_nothing(user_cloister: Cloister, attack: Attack) -> None:
    cloister = user_cloister
    if attack.before == "make":
        make_repository(cloister)
    elif attack.before:
        made = on_host(cloister, PRELUDE + attack.before, cloister.project)
        assert made.returncode == 0, made
    for script in attack.sessions:
        done = cloister(
            "run", "-e", f"MARK={mark(cloister)}", "--", "/bin/bash", "-c", PRELUDE + script + "\ntrue"
        )
        assert "Traceback" not in done.err, done.err
    for place in attack.where:
        use_git(cloister, place)
    assert not mark(cloister).exists(), done.err
    assert "Traceback" not in cloister.run("true").err
    remove_deep(cloister)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_the_same_without_a_sandbox_breaches(user_cloister: Cloister, attack: Attack) -> None:
    """The control: each attack would work."""
    cloister = user_cloister
    if attack.before == "make":
        make_repository(cloister)
    for script in (
        attack.before.replace("make", "true") if attack.before == "make" else attack.before,
        *attack.sessions,
    ):
        on_host(cloister, PRELUDE + script, cloister.project)
    for place in attack.where:
        use_git(cloister, place)
    assert mark(cloister).exists()
    remove_deep(cloister)


@pytest.mark.parametrize("how", ["python of a virtual environment", "directory of PATH"])
def test_a_link_of_the_agent_shows_nothing_of_the_home(user_cloister: Cloister, how: str) -> None:
    """FS-2: tools are bound where PATH and links lead, but not where the agent's own links lead."""
    cloister = user_cloister
    secret = cloister.write(cloister.home / "Documents/secret.txt", "host secret\n")
    cloister.extra_environment["PATH"] = f"{cloister.project}/.venv/bin:{cloister.environment()['PATH']}"
    target = secret if how.startswith("python") else secret.parent
    place = ".venv/bin/python" if how.startswith("python") else ".venv/bin"
    assert cloister.sh(f"mkdir -p $(dirname {place}); ln -s '{target}' {place}").code == 0
    assert (cloister.project / place).resolve() == target, "the control: on the host, the link leads there"
    done = cloister.sh(f"cat '{secret}' {place} {place}/secret.txt; echo end")
    assert done.out == "end\n"


def test_names_of_the_agent_do_not_reach_the_terminal(user_cloister: Cloister) -> None:
    """What was quarantined is named, escaped: a file's name may be a terminal's command."""
    script = r"""
    mkdir -p s/.git/objects s/.git/refs s/.git/hooks; echo ref: > s/.git/HEAD
    printf "[e\033]0;x]\n a=b\n" > s/.git/config; touch "s/.git/hooks/$(printf '\033[2J\nx')" """
    done = user_cloister.sh(script)
    assert "quarantined 's/.git/config'" in done.err
    assert len(done.err.splitlines()) == 2, done.err
    assert "\033" not in done.err
