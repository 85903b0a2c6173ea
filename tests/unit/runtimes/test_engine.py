"""Finding an engine and what it is; the client is a fake program first on PATH."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cloister.errors import HostError
from cloister.runtimes import engine

INFO = {
    "KernelVersion": os.uname().release, "MemoryLimit": True, "PidsLimit": True, "SecurityOptions": ["name=seccomp"],
}  # fmt: skip


class Fake:
    """A client that prints `answer`, and writes down that it was asked."""

    def __init__(self, directory: Path, name: str) -> None:
        self.path = directory / name
        self.calls = directory / "calls"
        directory.mkdir(parents=True, exist_ok=True)

    def says(self, answer: object, *, errors: str = "", code: int = 0) -> Fake:
        script = f"#!/bin/sh\necho x >> {self.calls}\ncat <<'E'\n{json.dumps(answer)}\nE\nprintf '%s' '{errors}' >&2\nexit {code}\n"
        self.path.write_text(script)
        self.path.chmod(0o755)
        return self

    @property
    def asked(self) -> int:
        return len(self.calls.read_text().splitlines()) if self.calls.exists() else 0


def find(tmp_path: Path, name: str = "docker", **environ: str) -> engine.Engine:
    variables = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "HOME": str(tmp_path), "SECRET": "x", **environ}
    return engine.find(name, variables, workspace=f"{tmp_path}/project", state_directory=f"{tmp_path}/state")


def test_docker_of_this_host_is_asked_once(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "bin", "docker").says(INFO)
    first, second = find(tmp_path), find(tmp_path)
    assert first == second
    assert fake.asked == 2  # what it is, and how it is reached
    assert (first.local, first.rootless, first.remapped, first.limits) == (True, False, False, True)
    assert "SECRET" not in first.environment


def test_another_engine_is_asked_again(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "bin", "docker").says(INFO)
    find(tmp_path)
    find(tmp_path, DOCKER_HOST="unix:///elsewhere.sock")
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text('{"currentContext": "other"}')
    find(tmp_path)
    assert fake.asked == 6


@pytest.mark.parametrize(
    ("answer", "environ", "expected"),
    [
        ({"KernelVersion": "5.15.49-linuxkit"}, {}, ("local", False)),  # Docker Desktop, OrbStack
        ({}, {"DOCKER_HOST": "tcp://10.0.0.1:2375"}, ("local", False)),
        ({"SecurityOptions": ["name=seccomp", "name=rootless"]}, {}, ("rootless", True)),
        ({"SecurityOptions": ["name=userns"]}, {}, ("remapped", True)),
        ({"MemoryLimit": False}, {}, ("limits", False)),
    ],
)
def test_what_docker_is(
    tmp_path: Path, answer: dict[str, object], environ: dict[str, str], expected: tuple[str, bool]
) -> None:
    Fake(tmp_path / "bin", "docker").says(INFO | answer)
    assert getattr(find(tmp_path, **environ), expected[0]) is expected[1]


@pytest.mark.parametrize(
    ("endpoint", "shares"),
    [("unix:///home/ada/.docker/desktop/docker.sock", True), ("ssh://ada@far", False), ("", True)],
)
def test_a_docker_on_another_kernel_is_in_a_machine_of_this_host_or_on_another(
    tmp_path: Path, endpoint: str, shares: bool
) -> None:
    answer = INFO | {"KernelVersion": "6.6.0-linuxkit", "Architecture": "aarch64", "NCPU": 3}
    context = {"Name": "far", "Endpoints": {"docker": {"Host": endpoint}}, "TLSMaterial": {}}
    (tmp_path / "bin").mkdir()
    client = tmp_path / "bin/docker"
    client.write_text(
        f"#!/bin/sh\nif [ $1 = context ]; then echo '{json.dumps(context) if endpoint else ''}'; "
        f"else echo '{json.dumps(answer)}'; fi\n"
    )
    client.chmod(0o755)
    found = find(tmp_path)
    assert (found.local, found.shares, found.machine, found.cpus) == (False, shares, "aarch64", 3)
    assert found.remote is not shares
    # Whatever context the user chooses later, this engine is asked.
    assert found.environment.get("DOCKER_CONTEXT") == ("far" if endpoint else None)


def podman_info(**host: object) -> dict[str, object]:
    return {
        "host": {
            "kernel": os.uname().release,
            "security": {"rootless": True},
            "cgroupControllers": [],
            **host,
        }
    }


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ({}, (True, True, False)),
        ({"cgroupControllers": ["cpu", "memory", "pids"]}, (True, True, True)),
        ({"security": {"rootless": False}}, (True, False, True)),
        ({"serviceIsRemote": True}, (False, True, False)),
    ],
)
def test_what_podman_is(tmp_path: Path, host: dict[str, object], expected: tuple[bool, bool, bool]) -> None:
    Fake(tmp_path / "bin", "podman").says(podman_info(**host))
    found = find(tmp_path, "podman")
    assert (found.local, found.rootless, found.limits) == expected


@pytest.mark.parametrize(
    ("answer", "run_root"),
    [({"store": {"runRoot": "/run/user/1000/containers"}}, "/run/user/1000/containers"), ({}, "")],
)
def test_where_podman_keeps_what_runs(tmp_path: Path, answer: dict[str, object], run_root: str) -> None:
    fake = Fake(tmp_path / "bin", "podman").says({**podman_info(), **answer})
    assert engine.look("podman", str(fake.path), {})["run_root"] == run_root


def test_a_client_without_an_engine(tmp_path: Path) -> None:
    """Docker's client prints what it knows of itself, and ends with 0 in some versions."""
    answer = {
        "ServerErrors": ["Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?"]
    }
    fake = Fake(tmp_path / "bin", "docker").says(answer)
    for _ in range(2):  # nothing of it is kept
        with pytest.raises(HostError, match="does not answer"):
            find(tmp_path)
    assert fake.asked == 2


def test_a_program_in_the_workspace_is_no_engine(tmp_path: Path) -> None:
    Fake(tmp_path / "project/bin", "docker").says(INFO)
    with pytest.raises(HostError, match="docker is not installed"):
        engine.find(
            "docker",
            {"PATH": f"{tmp_path}/project/bin:{tmp_path}/none"},
            workspace=f"{tmp_path}/project",
            state_directory=str(tmp_path),
        )
