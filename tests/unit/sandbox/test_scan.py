from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from pathlib import Path

import pytest

from cloister.errors import WorkspaceError
from cloister.sandbox import placeholders, protect, scan
from cloister.sandbox.protect import Placeholder, Protection


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    workspace = tmp_path / "project"
    workspace.mkdir()
    return workspace


def look(workspace: Path, **options: tuple[str, ...]) -> Protection:
    return scan.scan(str(workspace), home=str(workspace.parent / "home"), **options)


def repository(directory: Path) -> Path:
    subprocess.run(["git", "init", "-q", str(directory)], check=True, env={"PATH": os.environ["PATH"]})
    return directory / ".git"


def test_an_empty_workspace_gets_every_placeholder(workspace: Path) -> None:
    found = look(workspace)
    assert {one.path for one in found.placeholders} == {
        f"{workspace}/{name}" for name in protect.PLACEHOLDERS
    }
    assert (found.read_only, found.parents, found.notes) == ((), (), ())


def test_a_repository(workspace: Path) -> None:
    git = repository(workspace)
    found = look(workspace)
    assert found.parents == (str(git),), "the way to a protected path must not be renamed"
    assert {f"{git}/config", f"{git}/hooks"} <= set(found.read_only)
    assert Placeholder(f"{git}/commondir", b".\n") in found.placeholders
    assert str(git) in found.nested


def test_missing_hooks_get_a_placeholder(workspace: Path) -> None:
    git = repository(workspace)
    subprocess.run(["rm", "-r", str(git / "hooks")], check=True)
    assert Placeholder(f"{git}/hooks") in look(workspace).placeholders


def test_a_live_placeholder_is_one_for_the_next_sandbox_too(workspace: Path) -> None:
    git = repository(workspace)
    (git / "commondir").write_bytes(b".\n")
    (workspace / ".vscode").mkdir()
    found = look(workspace)
    assert Placeholder(f"{git}/commondir", b".\n") in found.placeholders
    assert Placeholder(f"{workspace}/.vscode") in found.placeholders
    assert f"{git}/commondir" not in found.read_only


def test_nested_and_bare_repositories_modules_and_worktrees(workspace: Path) -> None:
    git = repository(workspace)
    nested = repository(workspace / "a/nested")
    subprocess.run(["git", "init", "-q", "--bare", str(workspace / "b/bare")], check=True)
    subprocess.run(["git", "init", "-q", "--bare", str(git / "modules/group/sub")], check=True)
    (git / "worktrees/tree").mkdir(parents=True)
    for name in ("HEAD", "commondir", "gitdir"):
        (git / "worktrees/tree" / name).write_text("x")
    (workspace / "sub").mkdir()
    (workspace / "sub/.git").write_text("gitdir: ../.git/modules/group/sub\n")
    found = look(workspace)
    bare = workspace / "b/bare"
    assert {
        f"{nested}/config", f"{nested}/hooks", f"{bare}/config", f"{bare}/hooks",
        f"{git}/modules/group/sub/config", f"{git}/worktrees/tree/commondir", f"{git}/worktrees/tree/gitdir",
        f"{workspace}/sub/.git",
    } <= set(found.read_only)  # fmt: skip
    assert {f"{workspace}/a", f"{workspace}/a/nested", str(nested), str(bare), f"{git}/modules/group"} <= set(
        found.parents
    )


def test_hooks_path_and_includes_are_followed(workspace: Path) -> None:
    git = repository(workspace)
    (git / "config").write_text(
        "[core]\n\thooksPath = tools/hooks\n[include]\n\tpath = ../shared.cfg\n[include]\n\tpath = ../absent.cfg\n"
    )
    (workspace / "tools/hooks").mkdir(parents=True)
    (workspace / "tools/hooks/pre-commit").touch()
    (workspace / "shared.cfg").write_text("[include]\n\tpath = deeper.cfg\n")
    (workspace / "deeper.cfg").write_text("[include]\n\tpath = deeper.cfg\n")
    found = look(workspace)
    assert {f"{workspace}/{name}" for name in ("tools/hooks", "shared.cfg", "deeper.cfg")} <= set(
        found.read_only
    )
    assert Placeholder(f"{workspace}/absent.cfg", b"") in found.placeholders
    assert f"{workspace}/tools" in found.parents


def test_the_users_own_hooks_path_counts(workspace: Path) -> None:
    home = workspace.parent / "home"
    home.mkdir()
    (home / ".gitconfig").write_text("[core]\n\thooksPath = .githooks\n")
    assert Placeholder(f"{workspace}/.githooks") in look(workspace).placeholders


def test_credentials_in_a_configuration_are_taken_out(workspace: Path) -> None:
    git = repository(workspace)
    (git / "config").write_text('[remote "o"]\n\turl = https://tok@example.org/a\n')
    found = look(workspace)
    assert found.redacted == ((f"{git}/config", b'[remote "o"]\n\turl = https://example.org/a\n'),)
    assert f"{git}/config" not in found.read_only


def test_secrets_are_masked_unless_unmasked(workspace: Path) -> None:
    (workspace / "tests").mkdir()
    for name in (".env", ".env.example", "tests/.env"):
        (workspace / name).write_text("A=1")
    (workspace / "key.pem").write_text("-----BEGIN PRIVATE KEY-----")
    (workspace / "cert.pem").write_text("-----BEGIN CERTIFICATE-----")
    (workspace / ".aws").mkdir()
    found = look(workspace)
    assert set(found.masked_files) == {f"{workspace}/{name}" for name in (".env", "tests/.env", "key.pem")}
    assert found.masked_directories == (f"{workspace}/.aws",)
    found = look(workspace, unmask=("tests/.env",))
    assert f"{workspace}/tests/.env" not in found.masked_files
    assert f"{workspace}/.env" in found.masked_files


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_a_socket_is_masked_while_somebody_listens(workspace: Path, kind: int) -> None:
    """K-5: a pathname socket is reached through any bind mount, whatever the network namespace."""
    deep = workspace / "tmp" / ("d" * 90)  # longer than an address of a socket can be
    deep.mkdir(parents=True)
    path = str(deep / "s")
    with contextlib.chdir(deep), socket.socket(socket.AF_UNIX, kind) as server:
        server.bind("s")
        if kind != socket.SOCK_DGRAM:
            server.listen(0)
        assert look(workspace).masked_files == (path,)
        assert look(workspace, unmask=("tmp/**/s",)).masked_files == ()
    assert os.path.lexists(path)
    assert look(workspace).masked_files == (), "what is left of one is the sandbox's to replace"


def test_a_fifo_is_no_socket(workspace: Path) -> None:
    os.mkfifo(workspace / "pipe")
    assert look(workspace).masked_files == ()


def test_a_secret_behind_a_link_is_masked_where_it_is(workspace: Path) -> None:
    (workspace / "store").mkdir()
    (workspace / "store/production").write_text("A=1")
    (workspace / ".env").symlink_to("store/production")
    assert look(workspace).masked_files == (f"{workspace}/store/production",)


@pytest.mark.parametrize("name", [".vscode", ".git", ".mcp.json", "cloister.toml"])
def test_a_protected_link_at_the_root_is_refused(workspace: Path, name: str) -> None:
    (workspace / name).symlink_to("/elsewhere")
    with pytest.raises(WorkspaceError, match="is a symbolic link") as refused:
        look(workspace)
    assert "rm " in refused.value.resolution


def test_the_target_of_a_deeper_link_is_protected(workspace: Path) -> None:
    (workspace / "a").mkdir()
    (workspace / "shared").mkdir()
    (workspace / "a/.vscode").symlink_to("../shared")
    assert f"{workspace}/shared" in look(workspace).read_only


def test_declared_paths(workspace: Path) -> None:
    (workspace / "deploy").mkdir()
    (workspace / "deploy/run.sh").touch()
    found = look(workspace, protected=("deploy/run.sh", "deploy/later", "no/where"))
    assert f"{workspace}/deploy/run.sh" in found.read_only
    assert Placeholder(f"{workspace}/deploy/later") in found.placeholders
    assert found.parents == (f"{workspace}/deploy",)
    assert "'no/where'" in found.notes[0]
    for outside in ("../x", "/etc/passwd", "."):
        with pytest.raises(WorkspaceError, match="outside the workspace"):
            look(workspace, protected=(outside,))


def test_a_writable_parent_never_opens_a_read_only_directory(workspace: Path) -> None:
    (workspace / ".claude/nested/.vscode").mkdir(parents=True)
    (workspace / ".claude/nested/.vscode/x").touch()
    found = look(workspace)
    assert f"{workspace}/.claude" in found.read_only
    assert not any(parent.startswith(f"{workspace}/.claude") for parent in found.parents)


def test_beyond_the_bound_nothing_starts(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "MAX_DIRECTORIES", 3)
    for number in range(5):
        (workspace / str(number)).mkdir()
    with pytest.raises(WorkspaceError, match="too large"):
        look(workspace)


def test_a_fifo_does_not_hang(workspace: Path) -> None:
    os.mkfifo(workspace / "key.pem")
    os.mkfifo(workspace / ".npmrc")
    look(workspace)


def test_all_that_one_sandbox_holds_another_one_relies_on_too(workspace: Path, tmp_path: Path) -> None:
    """Else what the first one made goes with it, and the second one's mounts do."""
    git = repository(workspace)
    (git / "config").unlink()
    part = git / "modules/sub"
    part.mkdir(parents=True)
    (part / "HEAD").write_text("ref: refs/heads/main\n")
    (part / "config").write_text(
        "[extensions]\n\tworktreeConfig = true\n[include]\n\tpath = ../../../absent.cfg\n"
    )
    state = str(tmp_path / "state")
    first = look(workspace)
    placeholders.acquire(state, "first", first.placeholders)
    second = look(workspace)
    assert set(second.placeholders) == set(first.placeholders)
    assert {f"{git}/config", f"{part}/config.worktree", f"{workspace}/absent.cfg"} <= {
        one.path for one in second.placeholders
    }
    placeholders.acquire(state, "second", second.placeholders)
    placeholders.release(state, "first")
    assert all(os.path.lexists(one.path) for one in second.placeholders)
    placeholders.release(state, "second")
    assert not any(os.path.lexists(one.path) for one in second.placeholders)
