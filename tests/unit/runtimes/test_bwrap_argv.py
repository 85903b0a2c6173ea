from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from cloister.runtimes import bwrap_argv, start_script
from cloister.runtimes.bwrap_argv import BwrapFeatures, Descriptors
from cloister.sandbox.spec import (
    Bind,
    CaBundle,
    Data,
    Dev,
    Directory,
    Limits,
    MaskDirectory,
    MaskFile,
    Proc,
    SandboxSpec,
    Symlink,
    Tmpfs,
)
from cloister.values import replace

GOLDEN = Path(__file__).parents[2] / "golden" / "bwrap"

SPEC = SandboxSpec(
    id="s1",
    hostname="cloister",
    user_name="ada",
    uid=1000,
    gid=1000,
    home="/home/ada",
    workspace="/home/ada/project",
    cwd="/home/ada/project/sub",
    command=("python", "-c", "print('$HOME; rm -rf /')"),
    environment=(("LD_PRELOAD", "/x"), ("PATH", "/usr/bin")),
    mounts=(
        Bind("/usr", "/usr"),
        Symlink("/bin", "usr/bin"),
        Proc("/proc"),
        Dev("/dev"),
        Tmpfs("/dev/shm", None, 0o1777),
        Bind("/etc/ssl/certs", "/etc/ssl/certs", optional=True),
        Data("/etc/passwd", b"x"),
        CaBundle("/etc/ssl/certs/ca-certificates.crt"),
        Tmpfs("/tmp", 1 << 20, 0o1777),
        Directory("/run/user/1000", 0o700),
        Bind("/state/home", "/home/ada", writable=True),
        Bind("/home/ada/project", "/home/ada/project", writable=True),
        MaskDirectory("/home/ada/project/.aws"),
        MaskFile("/home/ada/project/.env"),
        Bind("/home/ada/project/.git", "/home/ada/project/.git", writable=True),
        Data("/home/ada/project/.git/config", b"y"),
        Bind("/home/ada/project/.git/hooks", "/home/ada/project/.git/hooks"),
    ),
    limits=Limits(memory_bytes=1 << 30, cpus=2.0, pids=512),
)
DESCRIPTORS = Descriptors(
    options=10,
    seccomp=11,
    ca_bundle=12,
    status=13,
    data={"/etc/passwd": 14, "/home/ada/project/.git/config": 15},
)


def rendered(features: BwrapFeatures) -> str:
    options = bwrap_argv.options(SPEC, features=features, descriptors=DESCRIPTORS, empty_file="/state/empty")
    lines: list[str] = []
    for word in options:
        if word.startswith("--") or not lines:
            lines.append(word)
        else:
            lines[-1] += f" {word}"
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(("name", "version"), [("0.8", (0, 8, 0)), ("0.6", (0, 6, 1))])
def test_options_are_as_recorded(name: str, version: tuple[int, ...]) -> None:
    assert rendered(BwrapFeatures.of_version(version)) == (GOLDEN / f"options-{name}.txt").read_text()


def test_argv_is_as_recorded() -> None:
    argv = bwrap_argv.argv(SPEC, bwrap="/usr/bin/bwrap", descriptors=DESCRIPTORS, rlimits=True)
    assert argv == [
        "/usr/bin/bwrap", "--args", "10", "--", "/bin/sh", "-c",
        bwrap_argv.HOLD_SCRIPT + start_script.START_SCRIPT, "cloister",
        "512", str(1 << 20), "python", "-c", "print('$HOME; rm -rf /')",
    ]  # fmt: skip


def test_nothing_of_the_environment_is_in_argv() -> None:
    argv = bwrap_argv.argv(SPEC, bwrap="/usr/bin/bwrap", descriptors=DESCRIPTORS, rlimits=False)
    assert not any("LD_PRELOAD" in word or "/home/ada/project/.git" in word for word in argv)
    assert argv[8:10] == ["-", "-"], "a control group holds the limits"


def test_data_upon_a_bind_is_never_written_through() -> None:
    """`--file` writes into what lies there: the host's own .git/config."""
    text = rendered(BwrapFeatures())
    assert "--ro-bind-data 15 /home/ada/project/.git/config" in text
    assert "--file 14 /etc/passwd" in text
    assert "--ro-bind-data 12 /etc/ssl/certs/ca-certificates.crt" in text


def test_the_network_is_never_unshared_nor_shared_anew() -> None:
    text = rendered(BwrapFeatures())
    assert "--unshare-net" not in text
    assert "--unshare-all" not in text
    assert "--share-net" not in text


def test_options_survive_any_file_name() -> None:
    assert bwrap_argv.options_text(["a", "\udcff", "b\nc"]) == b"a\0\xff\0b\nc\0"


@pytest.fixture(
    params=[shell for shell in ("/bin/dash", "/bin/bash", "/bin/busybox") if os.path.exists(shell)]
)
def shell(request: pytest.FixtureRequest) -> list[str]:
    return [request.param, "sh"] if request.param.endswith("busybox") else [request.param]


def start(shell: list[str], *command: str, pids: str = "-", memory: str = "-") -> tuple[int, str, str]:
    done = subprocess.run(
        [*shell, "-c", start_script.START_SCRIPT, "cloister", pids, memory, *command],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_start_script_runs_the_command_as_given(shell: list[str]) -> None:
    assert start(shell, "printf", "%s|", "a b", "$HOME", "-n", "") == (0, "a b|$HOME|-n||", "")
    assert start(shell, "sh", "-c", "exit 7")[0] == 7


def test_the_start_script_names_a_missing_command(shell: list[str]) -> None:
    code, _, errors = start(shell, "no-such; touch x")
    assert (code, errors) == (127, "cloister: 'no-such; touch x' was not found in the sandbox's PATH\n")
    code, _, errors = start(shell, "/no/such")
    assert (code, errors) == (127, "cloister: '/no/such' does not exist in the sandbox\n")


def test_the_start_script_fails_with_126_for_what_cannot_run(shell: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch(0o644)
    assert start(shell, str(tmp_path / "file"))[0] == 126
    assert start(shell, "/tmp")[0] == 126


def test_the_start_script_sets_hard_limits(shell: list[str]) -> None:
    code, output, _ = start(shell, "sh", "-c", "cat /proc/self/limits", pids="4321", memory="1048576")
    limits = {line[:26].strip(): line[26:].split()[:2] for line in output.splitlines()}
    assert code == 0
    assert limits["Max processes"] == ["4321", "4321"]
    assert limits["Max data size"] == [str(1 << 30), str(1 << 30)]
    assert limits["Max core file size"] == ["0", "0"]


def test_a_spec_without_limits_sets_none() -> None:
    spec = replace(SPEC, limits=Limits())
    argv = bwrap_argv.argv(spec, bwrap="/usr/bin/bwrap", descriptors=DESCRIPTORS, rlimits=True)
    assert argv[8:10] == ["-", "-"]
