"""What a sandbox sees of the host, and what it can plant there (ATTACKS FS), in every runtime alike."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.contract.conftest import World


def test_the_workspace_is_shared_both_ways(kept: World) -> None:
    if kept.is_remote:
        pytest.skip(
            "the workspace is a copy on another machine: `diff` and `apply` bring it back (test_remote.py)"
        )
    project = kept.cloister.project
    assert kept.sh("cat src/main.txt; echo back > src/back.txt").out == "hello\n"
    assert (project / "src/back.txt").read_text() == "back\n"
    assert (project / "src/back.txt").stat().st_uid == kept.cloister.identity.uid


def test_the_rest_of_the_host_is_not_there(kept: World) -> None:
    """FS-3: beside the project lies what must not be seen."""
    kept.cloister.write(kept.cloister.home / ".ssh/id_ed25519", "private\n", 0o600)
    kept.cloister.write(kept.cloister.home / "other/secret.txt", "private\n")
    done = kept.sh(
        f"cat ~/.ssh/id_ed25519 {kept.cloister.home}/other/secret.txt; ls {kept.cloister.home}/.config/cloister"
    )
    assert (done.out, done.code != 0) == ("", True)


@pytest.mark.parametrize(
    "plant",
    [
        "echo x > .git/hooks/post-checkout", "echo x > .git/config", "mv .git .gitt", "mkdir -p .vscode/x",
        "echo x > .envrc", "echo x > cloister.toml", "echo x > .mcp.json", "rm -rf .git/hooks", "mkdir .claude/x",
        "ln -s /etc .devcontainer/x", "mv .vscode .v",
    ],
)  # fmt: skip
def test_planting(kept: World, plant: str) -> None:
    """FS-1; the control is that the same shell writes elsewhere."""
    if kept.is_remote:
        pytest.skip("a copy on another machine may hold anything: `apply` brings none of it (test_remote.py)")
    done = kept.sh(f"echo x > control && echo control; {{ {plant}; }} 2>/dev/null && echo BREACHED")
    assert done.out == "control\n", done


def test_secrets_in_the_workspace_are_masked(kept: World) -> None:
    """FS-6."""
    if kept.is_remote:  # it is not even there
        assert kept.sh("test -e src && ! test -e .env && echo gone").out == "gone\n"
        return
    assert kept.sh("cat .env; wc -c < .env").out == "0\n"
    assert (kept.cloister.project / ".env").read_text() == "SECRET=1\n"


def test_links_lead_nowhere(kept: World) -> None:
    """FS-2."""
    outside = kept.cloister.write(kept.cloister.home / "outside.txt", "private\n")
    done = kept.sh(
        f"ln -sf {outside} link; cat link; ln -f {outside} hard; cat /proc/self/root{outside}; cat /proc/1/root{outside}"
    )
    assert done.out == ""
    assert done.code != 0


def test_the_home_is_private_and_writable(kept: World) -> None:
    assert (
        kept.sh('echo x > ~/mine && [ "$HOME" = "$(getent passwd "$(id -u)" | cut -d: -f6)" ] && echo ok').out
        == "ok\n"
    )
    assert not (kept.cloister.home / "mine").exists()


def test_what_stays_and_what_goes(world: World) -> None:
    """Home and workspace stay over `stop`; a container and its /tmp do not."""
    cloister = world.cloister
    assert cloister("up", timeout_s=120).code == 0
    assert world.sh("echo 1 > ~/kept; echo 1 > kept; echo 1 > /tmp/gone").code == 0
    assert cloister("stop", timeout_s=120).code == 0
    assert world.containers() == []
    assert [path.name for path in cloister.project.iterdir()] == ["kept"]
    assert cloister("up", timeout_s=120).code == 0
    assert world.sh("ls ~/kept kept /tmp/gone 2>/dev/null").out == f"{cloister.home}/kept\nkept\n"
    assert cloister("rm", "--force", "--volumes", timeout_s=120).code == 0
    assert world.containers() == []


def test_odd_names_of_paths(world: World) -> None:
    """Commas, quotes, colons and blanks end no option (CFG-2, CFG-3)."""
    odd = world.cloister.directory(world.cloister.home / 'a, "b":c=$(id)')
    for name in ("x,readonly", 'y"z'):
        world.cloister.directory(odd / name / ".git")
    world.cloister.write(odd / "x,readonly/.env", "SECRET=1\n")
    done = world.cloister(
        "run", "--", "/bin/sh", "-c", "pwd; cat x*/.env; echo ok > there", cwd=odd, timeout_s=120
    )
    assert (done.code, done.out) == (0, f"{odd}\n"), done
    assert (odd / "there").read_text() == "ok\n"


def test_no_mount_of_ours_is_left_on_the_host(kept: World) -> None:
    """As root, ID-mapped mounts live only until the engine has taken them."""
    mounts = Path("/proc/self/mounts").read_text()
    assert os.fspath(kept.cloister.base) not in mounts
