"""No planting and no peeking: files of the host and of the workspace (ATTACKS FS), attacked from inside."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import pytest

from tests.world import Cloister

pytestmark = pytest.mark.sandbox

# What the host executes or obeys, at the workspace's root; none of it exists at start.
PLANTS = (
    ".git/hooks/pre-commit",
    ".vscode/tasks.json",
    ".idea/workspace.xml",
    ".devcontainer/devcontainer.json",
    ".devcontainer.json",
    ".envrc",
    ".mcp.json",
    ".claude/settings.json",
    ".cursor/mcp.json",
    ".gitmodules",
    "cloister.toml",
)


def make_repository(cloister: Cloister, where: Path | None = None) -> Path:
    root = where or cloister.project
    cloister.write(root / ".git/HEAD", "ref: refs/heads/main\n")
    cloister.write(root / ".git/config", "[core]\n\trepositoryformatversion = 0\n\tbare = false\n")
    cloister.write(root / ".git/hooks/pre-commit.sample", "#!/bin/sh\n")
    cloister.directory(root / ".git/objects")
    cloister.directory(root / ".git/refs/heads")
    return root


def host_files(root: Path) -> dict[str, bytes]:
    """Every file of a tree with its content: what the host sees."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


@pytest.mark.parametrize("plant", PLANTS)
def test_planting_what_does_not_exist_yet(cloister: Cloister, plant: str) -> None:
    """FS-1. The control: an ordinary file next to it can be written."""
    make_repository(cloister)
    before = host_files(cloister.project)
    parent = os.path.dirname(plant)
    script = f"""
    echo control > control
    {{ mkdir -p '{parent or "."}' && echo evil > '{plant}'; }} 2>/dev/null
    rm -rf '{plant}' 2>/dev/null; rmdir '{plant}' 2>/dev/null; echo evil > '{plant}' 2>/dev/null
    mv '{plant.split("/", maxsplit=1)[0]}' moved 2>/dev/null && mkdir -p '{parent or "."}' && echo evil > '{plant}'
    ln -s /tmp/evil '{plant}' 2>/dev/null; ln -f control '{plant}' 2>/dev/null
    mv control '{plant}' 2>/dev/null; echo control > control"""
    cloister.sh(script)
    after = host_files(cloister.project)
    assert after.pop("control") == b"control\n"
    after.pop("moved", None)  # a file under a name that nothing executes
    assert after == before


def test_planting_in_what_exists(cloister: Cloister) -> None:
    """FS-1: git's configuration and hooks, and everything above them, by every means of a file system."""
    make_repository(cloister)
    make_repository(cloister, cloister.project / "vendor/nested")
    cloister.write(cloister.project / ".vscode/settings.json", "{}\n")
    before = host_files(cloister.project)
    script = """
    for repo in . vendor/nested; do
        for file in config hooks/pre-commit hooks/pre-commit.sample; do
            { echo evil >> $repo/.git/$file; } 2>/dev/null && echo "append $file"
            { echo evil > $repo/.git/$file.new && mv $repo/.git/$file.new $repo/.git/$file; } 2>/dev/null && echo "rename $file"
            rm -f $repo/.git/$file.new
            ln -f $repo/.git/$file link 2>/dev/null && echo "link $file"
            [ -e $repo/.git/$file ] && rm -f $repo/.git/$file 2>/dev/null && [ ! -e $repo/.git/$file ] && echo "unlink $file"
        done
        mv $repo/.git/hooks $repo/.git/hooks2 2>/dev/null && echo "rename hooks"
        mv $repo/.git $repo/.git2 2>/dev/null && echo "rename .git"
        rm -rf $repo/.git/hooks $repo/.git/config 2>/dev/null
        chmod 777 $repo/.git/hooks 2>/dev/null && echo "chmod"
    done
    mv vendor/nested vendor/other 2>/dev/null && echo "rename the parent"
    mv vendor other 2>/dev/null && echo "rename the grandparent"
    { echo evil > .vscode/settings.json; } 2>/dev/null && echo "settings"
    { echo evil > /proc/self/root$PWD/.git/config; } 2>/dev/null && echo "/proc/self/root"
    { echo evil > /proc/self/cwd/.git/config; } 2>/dev/null && echo "/proc/self/cwd"
    echo control > .git/FETCH_HEAD && rm .git/FETCH_HEAD && echo control"""
    done = cloister.sh(script)
    lines = done.out.splitlines()
    assert lines == ["control"], done
    assert host_files(cloister.project) == before


def test_git_works_in_the_workspace(cloister: Cloister) -> None:
    """The protection must not cost the agent its work: commit, branch, status, diff, stash."""
    script = """
    set -e; export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b.test GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b.test
    echo one > file; git add file; git commit -qm one; git checkout -qb agent/work; echo two > file; git stash -q; git stash pop -q
    git commit -qam two; git log --format=%s; git status --porcelain"""
    import subprocess

    subprocess.run(["git", "init", "-q", "-b", "main", str(cloister.project)], check=True)
    for path in [cloister.project / ".git", *(cloister.project / ".git").rglob("*")]:
        cloister.own(path)
    done = cloister.sh(script)
    assert (done.code, done.out) == (0, "two\none\n"), done


def test_commits_carry_the_users_name_and_nothing_else(cloister: Cloister) -> None:
    """A private home has no ~/.gitconfig: the name and address are shown, the credential helper is not."""
    cloister.write(
        cloister.home / ".gitconfig",
        '[user]\n\tname = Ada\n\temail = ada@example.test\n[credential]\n\thelper = store\n[url "https://t:s3cr3t@x/"]\n'
        "\tinsteadOf = x:\n",
    )
    done = cloister.sh(
        "mkdir r; cd r; git init -q; git commit -q --allow-empty -m x; git log --format='%an %ae'; git config --list"
    )
    assert done.out.startswith("Ada ada@example.test\n"), done
    helpers = [line for line in done.out.splitlines() if line.startswith("credential.helper")]
    assert helpers == ["credential.helper="], "none, whatever else is configured"
    assert "s3cr3t" not in done.out


def test_new_nested_repository_is_disarmed_afterwards(cloister: Cloister) -> None:
    """FS-1 in nested repositories that the agent makes itself: what the host would execute is moved away."""
    script = """
    mkdir -p sub/.git/hooks sub/.git/objects sub/.git/refs pkg/.vscode
    echo 'ref: refs/heads/main' > sub/.git/HEAD
    printf '[core]\\n\\trepositoryformatversion = 0\\n\\tfsmonitor = "touch /tmp/owned"\\n\\tbare = false\\n' > sub/.git/config
    printf '#!/bin/sh\\ntouch /tmp/owned\\n' > sub/.git/hooks/post-checkout; chmod +x sub/.git/hooks/post-checkout
    echo '{}' > pkg/.vscode/tasks.json; echo kept > sub/file"""
    done = cloister.sh(script)
    assert done.code == 0, done
    assert (cloister.project / "sub/file").read_text() == "kept\n"
    assert not (cloister.project / "sub/.git/hooks/post-checkout").exists()
    assert "fsmonitor" not in (cloister.project / "sub/.git/config").read_text()
    assert not (cloister.project / "pkg/.vscode/tasks.json").exists()
    assert "sub/.git" in done.err
    moved = [path.name for path in (cloister.state / "quarantine").rglob("*")]
    assert any(name.endswith("-post-checkout") for name in moved)


def test_symlinks_lead_nowhere(cloister: Cloister) -> None:
    """FS-2: a link out of the workspace shows the sandbox's own file system."""
    secret = cloister.write(cloister.home / "outside.txt", "host secret")
    (cloister.project / "link").symlink_to(secret)
    (cloister.project / "up").symlink_to("../outside.txt")
    script = f"cat link up ../outside.txt {secret} /proc/self/root{secret} /proc/1/root{secret} 2>/dev/null; ls ..; echo control"
    done = cloister.sh(script)
    assert "host secret" not in done.out
    assert done.out.endswith("control\n")


def test_the_host_home_and_neighbours_are_invisible(cloister: Cloister) -> None:
    """FS-3. The control: the same names exist on the host."""
    planted = {
        ".ssh/id_ed25519": "KEY", ".aws/credentials": "KEY", ".config/gh/hosts.yml": "KEY", ".netrc": "KEY", ".git-credentials": "KEY",
        ".mozilla/firefox/x/logins.json": "KEY", ".cargo/credentials.toml": "KEY", ".npmrc": "KEY", "other-project/file": "KEY",
        ".config/cloister/config.toml": "", ".kube/config": "KEY", ".docker/config.json": "KEY",
    }  # fmt: skip
    for name, text in planted.items():
        cloister.write(cloister.home / name, text)
    script = (
        "cd ~; "
        + " ".join(f"[ -e '{name}' ] && echo '{name}';" for name in planted)
        + "grep -rl KEY ~ 2>/dev/null; echo control"
    )
    done = cloister.sh(script)
    assert done.out == "control\n", done


def test_the_rest_of_the_host_is_invisible(cloister: Cloister) -> None:
    script = """
    for path in /boot /mnt /media /srv /home/* /var/log /var/lib/docker /etc/shadow /etc/ssh /etc/sudoers /sys/kernel /var/run/docker.sock /work; do
        [ -e "$path" ] && [ "$path" != "$HOME" ] && case "$HOME" in "$path"*) ;; *) echo "$path";; esac
    done
    touch /usr/x /etc/x /bin/x 2>/dev/null && echo WRITABLE; echo control"""
    done = cloister.sh(script)
    assert done.out == "control\n", done


def test_secrets_in_the_workspace_are_masked(cloister: Cloister) -> None:
    """FS-6; and `unmask` shows what the user allows."""
    key = "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n-----END OPENSSH PRIVATE KEY-----\n"
    for name in (
        ".env",
        ".env.production",
        "deploy/id_rsa",
        "deploy/server.key",
        "pkg/.env",
        ".netrc",
        ".git-credentials",
    ):
        cloister.write(cloister.project / name, f"SECRET=1\n{key}")
    cloister.write(cloister.project / ".env.example", "SECRET=\n")
    cloister.write(cloister.project / "public.pem", "-----BEGIN CERTIFICATE-----\nx\n")
    done = cloister.sh(
        "grep -rl SECRET=1 . ; cat .env.example public.pem; mv .env away; rm -f .env; cat .env; echo end"
    )
    assert done.out == "SECRET=\n-----BEGIN CERTIFICATE-----\nx\nend\n", done
    assert (cloister.project / ".env").read_text().startswith("SECRET=1")
    cloister.configure('[sandbox]\nunmask = ["pkg/.env"]\n')
    assert cloister.sh("grep -rl SECRET=1 .").out == "./pkg/.env\n"


def test_sockets_of_the_host_in_the_workspace_are_masked(cloister: Cloister) -> None:
    """K-5: a multiplexer's or a database's socket in the project; the control is one that `unmask` shows."""
    script = """import socket
for name in ("hidden.sock", "shown.sock"):
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(name)
        print(name, "reached")
    except OSError as error:
        print(name, type(error).__name__)
"""
    cloister.configure('[sandbox]\nunmask = ["shown.sock"]\n')
    with contextlib.ExitStack() as servers:
        for name in ("hidden.sock", "shown.sock"):
            path = cloister.project / name
            server = servers.enter_context(socket.socket(socket.AF_UNIX))
            with contextlib.chdir(cloister.project):
                server.bind(name)
            server.listen()
            path.chmod(0o666)
            cloister.own(path)
        done = cloister.run("/usr/bin/python3", "-c", script)
    assert done.out == "hidden.sock PermissionError\nshown.sock reached\n", done


def test_credentials_in_git_config_are_taken_out(cloister: Cloister) -> None:
    make_repository(cloister)
    cloister.write(
        cloister.project / ".git/config",
        '[core]\n\tbare = false\n[remote "origin"]\n\turl = https://me:s3cr3t@forge.example.test/a/b.git\n'
        '[http "https://forge.example.test/"]\n\textraheader = AUTHORIZATION: basic czNjcjN0\n',
    )
    done = cloister.sh("cat .git/config; git config remote.origin.url")
    assert "s3cr3t" not in done.out
    assert "czNjcjN0" not in done.out
    assert "forge.example.test/a/b.git" in done.out


def test_environment_is_an_allow_list(cloister: Cloister) -> None:
    leaks = {
        "GITHUB_TOKEN": "ghp_x", "AWS_SECRET_ACCESS_KEY": "x", "SSH_AUTH_SOCK": "/tmp/agent", "LD_PRELOAD_X": "x", "DBUS_SESSION_BUS_ADDRESS": "unix:x",
        "ANTHROPIC_API_KEY": "sk", "KUBECONFIG": "/x", "DOCKER_HOST": "unix:///x",
    }  # fmt: skip
    done = cloister.sh("env; cat /proc/1/environ | tr '\\0' '\\n'; echo LANG=$LANG", environment=leaks)
    assert done.code == 0
    for name in leaks:
        assert f"{name}=" not in done.out
    assert "LANG=C.UTF-8" in done.out
    assert (
        cloister(
            "run",
            "-e",
            "GITHUB_TOKEN",
            "-e",
            "A=b",
            "--",
            "sh",
            "-c",
            "echo $GITHUB_TOKEN $A",
            environment=leaks,
        ).out
        == "ghp_x b\n"
    )


def test_no_set_user_id_program_gains_anything(cloister: Cloister) -> None:
    """FS-4: SUID files of /usr are visible but powerless; no device node but the harmless ones."""
    done = cloister.sh(
        "find /dev -type b; for n in sda vda mem kmsg kvm fuse; do [ -e /dev/$n ] && echo $n; done; su -c id root </dev/null 2>/dev/null; echo control"
    )
    assert done.out == "control\n", done
