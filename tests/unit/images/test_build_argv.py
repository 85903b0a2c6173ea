from __future__ import annotations

from cloister.images.build_argv import BuildCommand, arguments

COMMAND = BuildCommand(
    context="/tmp/c",
    tags=("cloister/python:0123456789ab", "cloister/python:latest"),
    labels={"dev.cloister.image": "python"},
    base="debian@sha256:00",
)
COMMON = [
    "--tag", "cloister/python:0123456789ab", "--tag", "cloister/python:latest", "--label", "dev.cloister.image=python",
    "--build-arg", "BASE=debian@sha256:00",
]  # fmt: skip
START = ["build", "--file", "/tmp/c/Containerfile"]


def test_podman() -> None:
    found = arguments(COMMAND, podman=True, buildkit=False, buildx=False, proxies=["http_proxy"])
    assert found == [*START, *COMMON, "/tmp/c"]


def test_buildkit_within_the_client() -> None:
    found = arguments(COMMAND, podman=False, buildkit=True, buildx=False, proxies=[])
    assert found == [*START, "--progress=plain", *COMMON, "/tmp/c"]


def test_buildx_puts_the_image_into_the_engine() -> None:
    assert "--load" in arguments(COMMAND, podman=False, buildkit=True, buildx=True, proxies=[])


def test_proxies_are_named_and_never_shown() -> None:
    found = arguments(COMMAND, podman=False, buildkit=False, buildx=False, proxies=["https_proxy"])
    assert found == [*START, *COMMON, "--build-arg", "https_proxy", "/tmp/c"]


def test_everything() -> None:
    command = BuildCommand(
        context="/tmp/c", tags=(), labels={}, base="b", platform="linux/arm64", network="host",
        apt_mirror="http://m/debian", no_cache=True,
    )  # fmt: skip
    assert arguments(command, podman=True, buildkit=False, buildx=False, proxies=[]) == [
        *START, "--build-arg", "BASE=b", "--build-arg", "APT_MIRROR=http://m/debian", "--platform", "linux/arm64",
        "--network", "host", "--no-cache", "/tmp/c",
    ]  # fmt: skip
