"""Building, with a fake engine: what it is told, what it is spared, and what a person gets where it fails."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from cloister.errors import CloisterError, HostError, UsageError
from cloister.images import build as images
from cloister.images import engine as engines
from cloister.images.build import Built, Wish
from cloister.images.progress import Output, Step
from cloister.images.render import DEFAULT_BASE
from tests.unit.images.conftest import FakeEngine


def build(heard: list[Step | Output] | None = None, **wish: object) -> Built:
    found = engines.find(None, os.environ)
    asked = images.checked(Wish(**{"name": "python", "base": "mine", **wish}))  # type: ignore[arg-type]  # a test's words
    return images.build(found, asked, (heard if heard is not None else []).append)


def test_a_local_base_is_used_and_pinned_by_its_id(docker: FakeEngine) -> None:
    docker.knows("mine", "sha256:m1")
    heard: list[Step | Output] = []
    built = build(heard)
    (call,) = docker.calls("build")
    assert "BASE=mine" in call["argv"]
    assert call["environment"]["DOCKER_BUILDKIT"] == "1"
    assert built.fresh and built.alias == "cloister/python:latest"
    assert built.reference in call["argv"] and built.alias in call["argv"]
    assert Output(stage="base", text="Setting up things") in heard
    assert not docker.calls("pull")
    assert (docker.directory / "context/files/etc/uv/uv.toml").exists()
    assert not os.path.exists(call["argv"][-1]), "the context is removed"


def test_the_same_content_is_not_built_again(docker: FakeEngine) -> None:
    docker.knows("mine", "sha256:m1")
    first, second = build(), build()
    assert (second.reference, second.fresh) == (first.reference, False)
    assert len(docker.calls("build")) == 1
    assert build(no_cache=True).fresh
    docker.knows("mine", "sha256:m2")
    assert build().reference != first.reference, "another base is another image"


def test_a_registrys_base_is_fetched_and_pinned_by_digest(docker: FakeEngine) -> None:
    build(base="debian:bookworm-slim")
    (call,) = docker.calls("build")
    assert "BASE=docker.io/library/debian@sha256:d1" in call["argv"]


def test_another_platform_has_its_own_alias(docker: FakeEngine) -> None:
    built = build(base="debian:bookworm-slim", platform="arm64")
    assert built.alias == "cloister/python:latest-arm64"
    assert docker.calls("pull", "--platform", "linux/arm64")
    build(base="debian:bookworm-slim", platform="linux/arm64", no_cache=True)
    assert len(docker.calls("pull")) == 1, "it is the right one now"
    build(base="debian:bookworm-slim")
    assert len(docker.calls("pull")) == 2, "and the wrong one again"
    call = docker.calls("build")[0]
    assert call["argv"][call["argv"].index("--platform") + 1] == "linux/arm64"


def test_a_base_that_cannot_be_had(docker: FakeEngine) -> None:
    docker.fails("pull", saying="Error response from daemon: manifest unknown\n")
    with pytest.raises(HostError) as caught:
        build(base="debian:nonesuch")
    assert caught.value.brief == "there is no base image 'debian:nonesuch' here, and it cannot be fetched"
    assert "manifest unknown" in caught.value.details
    assert "docker image ls" in caught.value.resolution


@pytest.mark.parametrize("base", ["-rf", "--privileged", "a b", "$(x)", "", "x\n"])
def test_a_base_is_no_option(docker: FakeEngine, base: str) -> None:
    with pytest.raises(UsageError, match="names no image"):
        build(base=base)
    assert not docker.calls("build") and not docker.calls("pull")


def test_a_root_file_system_is_imported_once(docker: FakeEngine, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "usr/bin").mkdir(parents=True)
    (root / "dev").mkdir()
    (root / "dev/secret").write_text("x")
    first = build(base=str(root))
    again = build(base=str(root), no_cache=True)
    assert first.reference == again.reference
    (call,) = docker.calls("import")
    assert call["argv"][2].startswith("cloister/root:")
    with tarfile.open(docker.directory / "imported.tar") as archive:
        found = archive.getnames()
    assert "./usr/bin" in found and "./dev/secret" not in found
    archived = tmp_path / "root.tar"
    archived.write_bytes((docker.directory / "imported.tar").read_bytes())
    assert build(base=str(archived)).reference == first.reference, "the same bytes"


def test_what_is_no_root_file_system(docker: FakeEngine, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it has no usr"):
        build(base=str(tmp_path))
    with pytest.raises(UsageError, match="does not exist"):
        build(base=str(tmp_path / "missing.tar"))


def test_a_full_disk(docker: FakeEngine) -> None:
    docker.knows("mine", "sha256:m1")
    (docker.directory / "full").touch()
    with pytest.raises(HostError) as caught:
        build()
    assert caught.value.details.splitlines() == [
        "in base: RUN set -eu",
        "Setting up things",
        "E: No space left on device",
        "ERROR: exit code: 100",
    ]
    assert caught.value.resolution == "make room: docker system df, then: docker builder prune"


def test_a_directory_of_the_project_is_no_base(
    docker: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docker.io/library/debian:bookworm-slim/usr").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    build(base=DEFAULT_BASE)
    assert not docker.calls("import")
    assert docker.calls("pull", DEFAULT_BASE)


def test_a_program_of_the_project_is_no_engine(
    docker: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = tmp_path / "project/node_modules/.bin/docker"
    planted.parent.mkdir(parents=True)
    planted.write_text(f"#!/bin/sh\n: > {tmp_path}/ran; echo 20.10 linux/amd64\n")
    planted.chmod(0o755)
    link = tmp_path / "link"
    link.symlink_to(planted.parent)
    monkeypatch.setenv("PATH", f"{planted.parent}:{link}:node_modules/.bin:{docker.directory}")
    monkeypatch.chdir(tmp_path / "project")
    found = engines.find(None, os.environ, untrusted=[str(tmp_path / "project")])
    assert found.program == str(docker.directory / "docker")
    assert found.environment["PATH"] == str(docker.directory), "its helpers are looked for there too"
    assert not (tmp_path / "ran").exists()
    assert engines.find(None, os.environ, untrusted=[str(tmp_path / "other")]).program == str(planted)
    assert (tmp_path / "ran").exists(), "the control"


def test_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError) as caught:
        engines.find(None, os.environ)
    assert caught.value.brief == "there is no container engine: docker and podman are not on PATH"
    with pytest.raises(HostError, match="podman is not on PATH"):
        engines.find("podman", os.environ)
    with pytest.raises(UsageError, match="'kubernetes' builds no images"):
        engines.find("kubernetes", os.environ)


@pytest.mark.parametrize(
    ("errors", "brief", "then"),
    [
        (
            "Cannot connect to the Docker daemon at unix:///x",
            "the docker engine does not answer",
            "systemctl start docker",
        ),
        (
            "permission denied while trying to connect",
            "the docker engine may not be used by you",
            "usermod -aG docker",
        ),
    ],
)
def test_an_engine_that_does_not_answer(docker: FakeEngine, errors: str, brief: str, then: str) -> None:
    docker.fails("version", saying=errors)
    with pytest.raises(HostError) as caught:
        engines.find(None, os.environ)
    assert (caught.value.brief, caught.value.details) == (brief, errors)
    assert then in caught.value.resolution


def test_the_engine_gets_proxies_and_nothing_of_the_users(
    docker: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://ada:hunter2@proxy:3128")
    monkeypatch.setenv("GITHUB_TOKEN", "ghp_x")
    docker.knows("mine", "sha256:m1")
    build()
    (call,) = docker.calls("build")
    assert call["environment"]["https_proxy"] == "http://ada:hunter2@proxy:3128"
    assert "GITHUB_TOKEN" not in call["environment"]
    assert "hunter2" not in str(call["argv"])


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"name": "pyhton"}, "there is no image 'pyhton'"),
        ({"platform": "windows/amd64"}, "--platform: 'windows/amd64' is not supported"),
        ({"apt_mirror": "http://ada:secret@mirror/debian"}, "is no address of a mirror"),
        ({"apt_mirror": "http://m/debian main; rm -rf /"}, "is no address of a mirror"),
        ({"network": "container:x"}, "--network: 'container:x' is none"),
    ],
)
def test_wishes_that_cannot_be_meant(wish: dict[str, str], words: str) -> None:
    with pytest.raises(CloisterError) as caught:
        images.checked(Wish(**{"name": "base", **wish}))  # type: ignore[arg-type]  # a test's words
    assert words in caught.value.brief
