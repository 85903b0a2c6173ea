"""Work trees whose git directory lies elsewhere: which are believed, and what is held of what they share."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from cloister.errors import WorkspaceError
from cloister.sandbox import linked, scan
from cloister.sandbox.protect import Placeholder


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    """A main work tree, and one that is linked to it."""
    main, tree = tmp_path / "main", tmp_path / "tree"
    script = f"""git init -q -b main {main} && cd {main} && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m one
    git config core.hooksPath .githooks; git config remote.origin.url https://me:s3cr3t@x/y
    git worktree add -q -b tree {tree} && git worktree add -q -b other {tmp_path}/other"""
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["/bin/sh", "-ec", script], check=True, env=environment, cwd=tmp_path)
    return main, tree


def test_what_git_has_made_is_believed(trees: tuple[Path, Path]) -> None:
    main, tree = trees
    assert linked.look(str(tree)) == linked.LinkedTree(
        work_tree=str(tree), git_directory=f"{main}/.git/worktrees/tree", common=f"{main}/.git"
    )
    assert linked.look(str(main)) is None
    assert linked.look("/") is None


@pytest.mark.parametrize(
    "forgery",
    [
        "echo gitdir: ../main/.git/worktrees/other > .git",
        "echo gitdir: ../main/.git > .git",
        "echo x > .git",
        "printf 'gitdir: ../main/.git/worktrees/tree\\0' > .git",
        "mv .git x; ln -s x .git",
        "rm .git; mkfifo .git",
        "echo /elsewhere/.git > $OWN/gitdir",
        "echo ../../../../victim/.git > $OWN/commondir",
        "rm $OWN/commondir",
        "mv $OWN $OWN.x; ln -s $OWN.x $OWN",
        "rm ../main/.git/HEAD",
        "mkdir -p x/worktrees/tree x/objects x/refs; cp $OWN/gitdir $OWN/commondir x/worktrees/tree; touch x/HEAD; echo gitdir: x/worktrees/tree > .git",
    ],
)
def test_what_does_not_lead_back_is_not(forgery: str, trees: tuple[Path, Path]) -> None:
    main, tree = trees
    environment = {"PATH": os.environ["PATH"], "OWN": f"{main}/.git/worktrees/tree"}
    subprocess.run(["/bin/sh", "-ec", forgery], cwd=tree, env=environment, check=True)
    assert linked.look(str(tree)) is None
    with contextlib.suppress(WorkspaceError):  # a link at the root is refused altogether
        assert scan.scan(str(tree), home="/h").beside == ()


def test_what_is_held(trees: tuple[Path, Path], tmp_path: Path) -> None:
    main, tree = trees
    (tree / ".env").touch()
    found = scan.scan(str(tree), home=str(tmp_path))
    common = f"{main}/.git"
    assert found.beside == (common,)
    assert set(found.read_only) - {f"{tree}/.git"} == {
        f"{common}/HEAD", f"{common}/index", f"{common}/info", f"{common}/hooks", f"{common}/worktrees",
        f"{common}/worktrees/tree/commondir", f"{common}/worktrees/tree/gitdir",
    } - {path for path in (f"{common}/index",) if not os.path.exists(path)}  # fmt: skip
    assert f"{common}/worktrees/tree" in found.parents
    assert [path for path, _ in found.redacted] == [f"{common}/config"]
    assert b"s3cr3t" not in found.redacted[0][1]
    assert found.masked_files == (f"{tree}/.env",)
    placeholders = set(found.placeholders)
    assert Placeholder(f"{tree}/.githooks") in placeholders, "core.hooksPath of the shared configuration"
    for path, content in (
        ("commondir", b".\n"), ("config.worktree", b""), ("modules", None), ("worktrees/tree/config.worktree", b""),
        ("worktrees/tree/modules", None), ("worktrees/tree/hooks", None),
    ):  # fmt: skip
        assert Placeholder(f"{common}/{path}", content) in placeholders, path
    assert not [one for one in placeholders if "worktrees/other" in one.path]


def test_an_empty_placeholder_of_another_sandbox_is_held_too(
    trees: tuple[Path, Path], tmp_path: Path
) -> None:
    """Else its end would take the mount point away under us."""
    main, tree = trees
    (main / ".git/modules").mkdir()
    (main / ".git/config.worktree").touch()
    (main / ".git/commondir").write_bytes(b".\n")
    found = scan.scan(str(tree), home=str(tmp_path))
    for path, content in (("commondir", b".\n"), ("config.worktree", b""), ("modules", None)):
        assert Placeholder(f"{main}/.git/{path}", content) in found.placeholders


def test_half_done_work_of_the_main_tree_is_held(trees: tuple[Path, Path], tmp_path: Path) -> None:
    main, tree = trees
    (main / ".git/rebase-merge").mkdir()
    (main / ".git/modules/x").mkdir(parents=True)
    found = scan.scan(str(tree), home=str(tmp_path))
    assert {f"{main}/.git/rebase-merge", f"{main}/.git/modules"} <= set(found.read_only)


@pytest.mark.parametrize("name", ["config", "hooks", "index", "info", "worktrees", "modules"])
def test_links_at_held_names_are_refused(name: str, trees: tuple[Path, Path], tmp_path: Path) -> None:
    main, tree = trees
    path = main / ".git" / name
    if os.path.lexists(path):
        path.rename(tmp_path / "away")
    path.symlink_to(tmp_path / "away")
    if name == "worktrees":
        assert scan.scan(str(tree), home=str(tmp_path)).beside == (), "it is no such work tree then"
        return
    with pytest.raises(WorkspaceError, match="symbolic link"):
        scan.scan(str(tree), home=str(tmp_path))
