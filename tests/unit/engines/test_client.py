"""Which program is an engine's client, and what it gets of the environment. Clients are files in a scratch PATH."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloister.engines import client
from cloister.system import proc


def program(directory: Path, name: str = "docker") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def find(tmp_path: Path, path: str, **environ: str) -> client.Client | None:
    return client.find(
        "docker", {"PATH": path, **environ}, untrusted=(f"{tmp_path}/project",), also=("no_proxy",)
    )


def test_the_first_on_path(tmp_path: Path) -> None:
    program(tmp_path / "b")
    first = program(tmp_path / "a")
    found = find(tmp_path, f"{tmp_path}/none:{tmp_path}/a:{tmp_path}/b")
    assert found is not None
    assert (found.name, found.program) == ("docker", str(first))


def test_only_what_concerns_the_engine_is_passed(tmp_path: Path) -> None:
    program(tmp_path / "a")
    found = find(
        tmp_path,
        f"{tmp_path}/a",
        HOME="/h",
        DOCKER_HOST="unix:///x",
        AWS_SECRET="s",
        no_proxy="*",
        http_proxy="p",
    )
    assert found is not None
    assert found.environment == {
        "HOME": "/h",
        "DOCKER_HOST": "unix:///x",
        "no_proxy": "*",
        "PATH": f"{tmp_path}/a",
    }


@pytest.mark.parametrize("entry", ["{project}/bin", "{tmp}/link", "relative", "", "."])
def test_what_the_agent_can_write_is_no_client_and_not_on_its_path(
    tmp_path: Path, entry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its helpers (docker-credential-…, docker-buildx) are looked for on PATH too."""
    for directory in (tmp_path / "project/bin", tmp_path / "project", tmp_path / "project/relative"):
        program(directory)
    (tmp_path / "link").symlink_to(tmp_path / "project/bin")
    monkeypatch.chdir(tmp_path / "project")
    own = program(tmp_path / "a")
    found = find(tmp_path, f"{entry.format(project=tmp_path / 'project', tmp=tmp_path)}:{tmp_path}/a")
    assert found is not None
    assert (found.program, found.environment["PATH"]) == (str(own), f"{tmp_path}/a")


def test_a_link_into_the_project_is_no_client(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/docker").symlink_to(program(tmp_path / "project"))
    assert find(tmp_path, f"{tmp_path}/a") is None


def test_nothing_on_path_is_no_client_and_no_path_is_the_systems(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert find(tmp_path, f"{tmp_path}/a") is None
    found = client.find("sh", {}, untrusted=())
    assert found is not None
    assert found.environment == {"PATH": proc.PATH}
