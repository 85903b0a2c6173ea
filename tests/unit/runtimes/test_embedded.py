"""What a failed start says, and that nothing is left open."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from cloister.errors import HostError
from cloister.network import plumb
from cloister.runtimes import bwrap_argv, embedded
from cloister.sandbox.spec import Bind, Data, Limits, SandboxSpec


def launch(tmp_path: Path, bwrap: str) -> embedded.Running:
    spec = SandboxSpec(
        id="s", hostname="h", user_name="agent", uid=1000, gid=1000, home="/root", workspace=str(tmp_path),
        cwd=str(tmp_path), command=("true",), environment=(), limits=Limits(),
        mounts=(Bind("/usr", "/usr"), Data("/etc/x", b"x"), Bind(str(tmp_path), str(tmp_path), writable=True)),
    )  # fmt: skip
    (tmp_path / "filter").write_bytes(b"")
    (tmp_path / "empty").write_bytes(b"")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, open(os.devnull, "rb") as bundle:
        return embedded.launch(
            spec,
            embedded.Launch(
                bwrap=bwrap,
                features=bwrap_argv.BwrapFeatures(),
                seccomp_file=str(tmp_path / "filter"),
                ca_bundle=bundle.fileno(),
                empty_file=str(tmp_path / "empty"),
                rlimits=True,
                group=None,
                gateway=theirs,
                bound=[],
            ),
        )


@pytest.mark.sandbox
def test_a_missing_program_is_told_and_no_descriptor_stays(tmp_path: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(HostError) as caught:
        launch(tmp_path, "/nonexistent/bwrap")
    assert caught.value.brief == "bubblewrap could not be started"
    assert "/nonexistent/bwrap" in caught.value.details
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSPC, errno.EACCES])
def test_forbidden_user_namespaces_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The child is forked after the patch, so it fails as it would on such a host."""

    def refuse(_uid: int, _gid: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(plumb, "enter_fresh_namespaces", refuse)
    with pytest.raises(HostError) as caught:
        launch(tmp_path, "/usr/bin/bwrap")
    assert "user namespaces" in caught.value.brief
    assert "cloister doctor" in caught.value.resolution


def test_a_full_network_setup_failure_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EADDRINUSE, "Address already in use")

    monkeypatch.setattr(plumb, "enter_fresh_namespaces", lambda *_: None)
    monkeypatch.setattr(plumb, "plumb", refuse)
    with pytest.raises(HostError) as caught:
        launch(tmp_path, "/usr/bin/bwrap")
    assert caught.value.brief == "the sandbox's network could not be set up"
