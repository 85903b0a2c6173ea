from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from cloister.sandbox import gitclean, quarantine, scan


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    workspace = tmp_path / "project"
    workspace.mkdir()
    return workspace


def git(directory: Path, *arguments: str) -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", *arguments], cwd=directory, env=environment, capture_output=True, check=True
    )
    return done.stdout.decode()


def sweep(workspace: Path, snapshot: frozenset[str] = frozenset()) -> dict[str, str]:
    kept = workspace.parent / "quarantine"
    moved = quarantine.sweep(str(workspace), snapshot, str(kept))
    assert not moved or len(json.loads((kept / "manifest.json").read_text())) == len(moved)
    return {one.path: one.reason for one in moved}


def test_a_new_repository_loses_what_executes_and_stays_usable(workspace: Path) -> None:
    git(workspace, "init", "-q", "clone")
    clone = workspace / "clone"
    git(clone, "config", "core.fsmonitor", "touch /tmp/planted; false")
    git(clone, "config", "remote.origin.url", "https://example.org/a.git")
    git(clone, "config", "alias.st", "!touch x")
    (clone / ".git/hooks/pre-commit").write_text("#!/bin/sh\ntouch x\n")
    (clone / ".git/commondir").write_text("../evil\n")
    moved = sweep(workspace)
    assert set(moved) == {"clone/.git/config", "clone/.git/hooks/pre-commit", "clone/.git/commondir"}
    assert "core.fsmonitor" in moved["clone/.git/config"]
    assert git(clone, "config", "remote.origin.url").strip() == "https://example.org/a.git"
    settings = git(clone, "config", "--local", "--list")
    assert "fsmonitor" not in settings
    assert "alias" not in settings
    assert git(clone, "status", "--short") == ""


def test_git_status_runs_nothing_in_a_directory_of_a_tool_that_the_index_calls_a_submodule(
    workspace: Path,
) -> None:
    git(workspace, "init", "-q")
    snapshot = scan.scan(str(workspace), home="/nonexistent").nested
    hidden = workspace / "node_modules/package"
    git(workspace, "init", "-q", str(hidden))
    git(hidden, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x")
    ran = workspace.parent / "ran"
    git(hidden, "config", "core.fsmonitor", f"touch {ran}; false")
    git(workspace, "-c", "advice.addEmbeddedRepo=false", "add", "-f", "node_modules/package")
    git(workspace, "status")
    assert ran.exists(), "the attack works"
    ran.unlink()
    assert set(sweep(workspace, snapshot)) == {"node_modules/package/.git/config"}
    git(workspace, "status")
    assert not ran.exists()


def test_in_directories_of_tools_git_is_looked_at_and_nothing_else(workspace: Path) -> None:
    for path in ("target/a/.vscode", "target/a/deep/.git/hooks", "elsewhere"):
        (workspace / path).mkdir(parents=True)
    (workspace / "target/a/.vscode/tasks.json").write_text("{}")
    (workspace / "target/a/deep/.git/hooks/pre-commit").write_text("x")  # no repository: git does not obey it
    (workspace / "target/link").mkdir()
    (workspace / "target/link/.git").symlink_to("../../elsewhere")
    (workspace / "target/pointer").mkdir()
    (workspace / "target/pointer/.git").write_text("gitdir: ../../elsewhere\n")
    locked = workspace / "target/locked"
    git(workspace, "init", "-q", str(locked))
    git(locked, "config", "core.fsmonitor", "false")
    locked.chmod(0)
    assert set(sweep(workspace)) == {"target/link/.git", "target/pointer/.git", "target/locked/.git/config"}


def test_an_untouched_new_repository_is_left_alone(workspace: Path) -> None:
    git(workspace, "init", "-q", "clone")
    before = (workspace / "clone/.git/config").read_bytes()
    assert sweep(workspace) == {}
    assert (workspace / "clone/.git/config").read_bytes() == before
    assert not (workspace.parent / "quarantine").exists()


def test_a_bare_repository_counts(workspace: Path) -> None:
    git(workspace, "init", "-q", "--bare", "deep/innocent")
    git(workspace / "deep/innocent", "config", "core.hooksPath", "/tmp/evil")
    assert set(sweep(workspace)) == {"deep/innocent/config"}


def test_what_was_there_at_start_stays(workspace: Path) -> None:
    git(workspace, "init", "-q", ".")
    git(workspace, "init", "-q", "--bare", "bare")
    (workspace / ".git/hooks/pre-commit").write_text("#!/bin/sh\n")
    (workspace / "sub/.vscode").mkdir(parents=True)
    (workspace / "sub/.vscode/tasks.json").write_text("{}")
    (workspace / ".envrc").write_text("x")
    found = scan.scan(str(workspace), home="/nonexistent")
    assert sweep(workspace, found.nested) == {}
    assert (workspace / "sub/.vscode/tasks.json").exists()


@pytest.mark.parametrize("name", [".vscode", ".idea", ".devcontainer", ".claude", ".husky"])
def test_a_new_protected_directory_goes(workspace: Path, name: str) -> None:
    (workspace / "a/b" / name).mkdir(parents=True)
    (workspace / "a/b" / name / "x").write_text("evil")
    assert set(sweep(workspace)) == {f"a/b/{name}"}
    assert not (workspace / "a/b" / name).exists()


@pytest.mark.parametrize("name", [".mcp.json", ".envrc", "x.code-workspace", ".vscode", "cloister.toml"])
def test_a_new_protected_file_or_link_goes(workspace: Path, name: str) -> None:
    (workspace / "a").mkdir()
    (workspace / "b").mkdir()
    (workspace / "a" / name).write_text("evil")
    (workspace / "b" / name).symlink_to("/etc")
    moved = sweep(workspace)
    assert set(moved) == {f"a/{name}", f"b/{name}"} or (name.endswith("x.code-workspace") and moved)


def test_an_empty_directory_may_be_a_live_mount_point(workspace: Path) -> None:
    (workspace / ".vscode").mkdir()
    assert sweep(workspace) == {}


def test_no_link_is_followed(workspace: Path) -> None:
    outside = workspace.parent / "outside"
    (outside / ".vscode").mkdir(parents=True)
    (outside / ".vscode/x").touch()
    (workspace / "link").symlink_to(outside)
    git(workspace, "init", "-q", "clone")
    (outside / "hook").write_text("keep")
    hooks = workspace / "clone/.git/hooks"
    for sample in hooks.iterdir():
        sample.unlink()
    hooks.rmdir()
    hooks.symlink_to(outside)
    assert set(sweep(workspace)) == {"clone/.git/hooks"}
    assert (outside / "hook").read_text() == "keep"
    assert (outside / ".vscode/x").exists()


def test_a_pointer_to_an_unknown_repository_goes(workspace: Path) -> None:
    evil = workspace / "node_modules/evil"
    git(workspace, "init", "-q", "--bare", "node_modules/evil")
    (workspace / "sub").mkdir()
    (workspace / "sub/.git").write_text(f"gitdir: {evil}\n")
    (workspace / "out").mkdir()
    (workspace / "out/.git").write_text("gitdir: /tmp\n")
    assert set(sweep(workspace)) == {"sub/.git", "out/.git"}


def test_a_new_worktree_and_module_of_the_own_repository_stay(workspace: Path) -> None:
    git(workspace, "init", "-q", ".")
    git(workspace, "-c", "user.name=a", "-c", "user.email=b", "commit", "-q", "--allow-empty", "-m", "x")
    snapshot = scan.scan(str(workspace), home="/nonexistent").nested
    git(workspace, "worktree", "add", "-q", "tree")
    assert sweep(workspace, snapshot) == {}
    (workspace / ".git/worktrees/tree/commondir").write_text("../../../evil\n")
    git(workspace, "init", "-q", "--bare", ".git/modules/sub")
    (workspace / ".git/modules/sub/hooks/post-checkout").write_text("evil")
    moved = sweep(workspace, snapshot)
    assert set(moved) == {".git/worktrees/tree/commondir", ".git/modules/sub/hooks/post-checkout"}


def test_fifos_do_not_hang(workspace: Path) -> None:
    git(workspace, "init", "-q", "clone")
    (workspace / "clone/.git/config").unlink()
    os.mkfifo(workspace / "clone/.git/config")
    (workspace / "sub").mkdir()
    os.mkfifo(workspace / "sub/.git")
    assert set(sweep(workspace)) == {"clone/.git/config", "sub/.git"}


EVIL = [
    '[core]\n\tfsmonitor = x\n',
    '[core] fsmonitor = x\n',
    '[include]\n\tpath = x\n',
    '[includeIf "gitdir:/"]\n\tpath = x\n',
    '[core]\n\thooksPath = x\n[core]\n\tsshCommand = y\n',
    '[remote "o"]\n\turl = ext::sh -c evil\n',
    '[remote "o"]\n\turl = --upload-pack=evil\n',
    '[remote "o"]\n\turl = https://x\\ny\n',
    '[remote "o"]\n\tuploadpack = evil\n',
    '[branch "m"]\n\tremote = ext::sh\n',
    '[submodule "s"]\n\tupdate = !evil\n',
    '[filter "x"]\n\tclean = evil\n',
    '[diff "x"]\n\ttextconv = evil\n',
    '[core]\n\tworktree = /home/ada\n',
    '[user]\n\tname = "a\\nb"\n',
    '[credential]\n\thelper = !evil\n',
    '[url "https://evil/"]\n\tinsteadOf = https://\n',
    '[extensions]\n\tworktreeConfig = true\n',
    '[core]\n\tbare = false\\\n\n\tpager = evil\n',
]  # fmt: skip


@pytest.mark.parametrize("text", EVIL)
def test_a_cleaned_configuration_keeps_no_setting_of_the_list(text: str, tmp_path: Path) -> None:
    clean, dropped = gitclean.cleaned(text)
    assert dropped
    (tmp_path / "config").write_text(clean)
    left = git(tmp_path, "config", "--file", "config", "--list")
    assert left in {"", "core.bare=false\n"}


def test_a_harmless_configuration_reads_the_same_after_cleaning(tmp_path: Path) -> None:
    text = (
        '[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n[remote "origin"]\n'
        '\turl = git@example.org:a/b.git ; comment\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n'
        '[branch "a\\"b"]\n\tremote = origin\n\tmerge = refs/heads/a\n[user]\n\tname = "Ada; #1 \\"L\\""\n'
    )  # fmt: skip
    clean, dropped = gitclean.cleaned(text)
    assert dropped == ()
    (tmp_path / "a").write_text(text)
    (tmp_path / "b").write_text(clean)
    listed = [git(tmp_path, "config", "--file", name, "--list", "-z") for name in "ab"]
    assert listed[0] == listed[1]
