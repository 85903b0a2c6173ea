"""Render the command line that builds an image.

Rule 1: this module does no I/O. Rule 2: nothing secret is in it: proxies are named, and their values, which may hold
a password, are taken from the client's environment by the client itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cloister.images.render import CONTAINERFILE

LABEL_IMAGE = "dev.cloister.image"
LABEL_CONTENT = "dev.cloister.content"
LABEL_RECIPE = "dev.cloister.recipe"
LABEL_BASE = "dev.cloister.base"  # as it was named, so that `cloister update` builds on the same


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildCommand:
    """What to build. `base` is a reference that the engine resolves; `platform` and `network` are empty for its own."""

    context: str
    tags: tuple[str, ...]
    labels: Mapping[str, str]
    base: str
    platform: str = ""
    network: str = ""
    apt_mirror: str = ""
    no_cache: bool = False


def arguments(
    command: BuildCommand, *, podman: bool, buildkit: bool, buildx: bool, proxies: Iterable[str]
) -> list[str]:
    """The arguments of `docker` or `podman`. `proxies`: variables of the client's environment that the build gets."""
    found = ["build", "--file", f"{command.context}/{CONTAINERFILE}"]
    if buildkit:
        found.append("--progress=plain")
    if buildx:
        found.append("--load")  # a builder in a container of its own keeps the image otherwise
    for tag in command.tags:
        found += ["--tag", tag]
    for name, value in command.labels.items():
        found += ["--label", f"{name}={value}"]
    found += ["--build-arg", f"BASE={command.base}"]
    if command.apt_mirror:
        found += ["--build-arg", f"APT_MIRROR={command.apt_mirror}"]
    if not podman:  # podman hands them on by itself
        for name in proxies:
            found += ["--build-arg", name]
    if command.platform:
        found += ["--platform", command.platform]
    if command.network:
        found += ["--network", command.network]
    if command.no_cache:
        found.append("--no-cache")
    return [*found, command.context]
