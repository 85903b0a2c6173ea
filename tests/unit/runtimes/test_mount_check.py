from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cloister.runtimes import bwrap_argv, mount_check
from cloister.sandbox.spec import Bind, Limits, MaskDirectory, SandboxSpec


def spec(workspace: str) -> SandboxSpec:
    return SandboxSpec(
        id="s",
        hostname="h",
        user_name="u",
        uid=1,
        gid=1,
        home="/home/ada",
        workspace=workspace,
        cwd=workspace,
        command=(),
        environment=(),
        mounts=(
            Bind("/usr", "/usr"),
            Bind(workspace, workspace, writable=True),
            Bind(f"{workspace}/sub", f"{workspace}/sub", writable=True),
            Bind(f"{workspace}/sub/.vs code", f"{workspace}/sub/.vs code"),
            MaskDirectory(f"{workspace}/.aws"),
        ),
        limits=Limits(),
    )


HEAD = "1 0 0:50 / / rw - tmpfs tmpfs rw\n"
GOOD = (
    "2 1 8:1 /home/ada/p /home/ada/p rw - ext4 /dev/a rw\n"
    "3 2 8:1 /home/ada/p/sub /home/ada/p/sub rw - ext4 /dev/a rw\n"
    "4 3 8:1 /home/ada/p/sub/.vs\\040code /home/ada/p/sub/.vs\\040code ro - ext4 /dev/a rw\n"
    "5 2 0:51 / /home/ada/p/.aws ro - tmpfs tmpfs rw\n"
)


def test_all_in_place() -> None:
    assert mount_check.misplaced(spec("/home/ada/p"), HEAD + GOOD) == ()


def test_a_workspace_that_is_a_file_system_of_its_own() -> None:
    mountinfo = HEAD + GOOD.replace(" /home/ada/p /home", " / /home").replace(
        "/home/ada/p/sub /home", "/sub /home"
    )
    mountinfo = mountinfo.replace("8:1 /home/ada/p/sub/.vs", "8:1 /sub/.vs")
    assert mount_check.misplaced(spec("/home/ada/p"), mountinfo) == ()


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ("8:1 /home/ada/p/sub /", "8:1 /home/ada/.ssh /", "sub"),
        ("3 2 8:1", "3 2 8:2", "sub"),
        ("/sub /home/ada/p/sub rw", "/sub /elsewhere rw", "sub"),
        ("/ /home/ada/p/.aws ro", "/ /home/ada/p/decoy ro", ".aws"),
    ],
)
def test_an_exchanged_source_is_found(before: str, after: str, found: str) -> None:
    assert mount_check.misplaced(spec("/home/ada/p"), HEAD + GOOD.replace(before, after)) == (
        f"/home/ada/p/{found}",
    )


def test_nothing_mounted_is_denied_by_default() -> None:
    assert mount_check.misplaced(spec("/home/ada/p"), "") == ("/home/ada/p",)
    workspace_alone = HEAD + GOOD.splitlines(keepends=True)[0]
    assert len(mount_check.misplaced(spec("/home/ada/p"), workspace_alone)) == 3


@pytest.mark.sandbox
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap")
@pytest.mark.parametrize("exchanged", [False, True])
def test_with_the_real_bubblewrap(tmp_path: Path, exchanged: bool) -> None:
    """What the race would do, done at leisure: the link is there when bubblewrap looks, gone when it mounts."""
    workspace = tmp_path / "p"
    (workspace / "sub/.vs code").mkdir(parents=True)
    secret = tmp_path / "secret"
    (secret / ".vs code").mkdir(parents=True)
    source = secret if exchanged else workspace / "sub"
    (ready, ready_inside), (go_inside, go) = os.pipe(), os.pipe()
    status, status_inside = os.pipe()
    script = f"exec 9>&{ready_inside} 8<&{go_inside}; " + bwrap_argv.HOLD_SCRIPT + "exit 7"
    arguments = [
        "bwrap", "--unshare-user", "--unshare-pid", "--ro-bind", "/usr", "/usr", "--symlink", "usr/lib64", "/lib64",
        "--symlink", "usr/lib", "/lib", "--bind", str(workspace), str(workspace),
        "--bind", str(source), str(workspace / "sub"),
        "--ro-bind", str(source / ".vs code"), str(workspace / "sub/.vs code"),
        "--tmpfs", str(workspace / ".aws"), "--json-status-fd", str(status_inside), "/usr/bin/bash", "-c", script,
    ]  # fmt: skip
    process = subprocess.Popen(arguments, pass_fds=(ready_inside, go_inside, status_inside))
    for descriptor in (ready_inside, go_inside, status_inside):
        os.close(descriptor)
    try:
        assert os.read(ready, 1) == b"r"
        child = json.loads(os.read(status, 4096).split(b"\n")[0])["child-pid"]
        found = mount_check.misplaced(spec(str(workspace)), Path(f"/proc/{child}/mountinfo").read_text())
        os.write(go, b"\n")
    finally:
        os.close(go)
        code = process.wait()  # before `status` is closed: bubblewrap writes its exit code there
        for descriptor in (ready, status):
            os.close(descriptor)
    assert (bool(found), code) == (exchanged, 7)


@pytest.mark.parametrize("shell", [shell for shell in ("/bin/dash", "/bin/bash") if os.path.exists(shell)])
def test_a_dead_session_is_no_permission(shell: str) -> None:
    script = f"exec 9>/dev/null 8</dev/null; {bwrap_argv.HOLD_SCRIPT}echo started"
    done = subprocess.run([shell, "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (125, b"")


def test_where_something_is_mounted() -> None:
    line = "355 422 254:0 /{0} /{0} ro,relatime - ext4 /dev/vda rw\n"
    text = line.format("w/.git/config") + line.format("w/a\\040b") + "junk\n\n"
    assert mount_check.mount_points(text) == {"/w/.git/config", "/w/a b"}
