"""Build an image: pin the base, write the context, let the engine work, say how it ended.

Rule 1: an image whose content is the same is not built again: its tag is its hash.
Rule 2: the alias (`cloister/python:latest`) moves only when the build has succeeded.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from cloister.config.packages import Packages, load_defaults
from cloister.engines.client import PODMAN, PROXIES
from cloister.errors import UsageError
from cloister.images import base as bases
from cloister.images.build_argv import (
    LABEL_BASE,
    LABEL_CONTENT,
    LABEL_IMAGE,
    LABEL_RECIPE,
    BuildCommand,
    arguments,
)
from cloister.images.engine import Engine, image_id, image_label
from cloister.images.failures import failure
from cloister.images.layer import known_name, load_layers, load_mise
from cloister.images.progress import Output, Reader, Step
from cloister.images.render import DEFAULT_BASE, LATEST, Recipe, recipe, tag
from cloister.images.tools import checked_tool

PLATFORMS = ("linux/amd64", "linux/arm64")
NETWORKS = ("default", "host")
_BUILD_S = 7200.0
_MIRROR = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._~/-]*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a person asked for; empty is the engine's own."""

    name: str
    base: str = DEFAULT_BASE
    platform: str = ""
    network: str = ""
    apt_mirror: str = ""
    no_cache: bool = False
    tools: tuple[str, ...] = ()
    authority: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """An image that the engine has now. `fresh`: it was built by this call."""

    reference: str
    alias: str
    fresh: bool


def image_recipe(name: str, *, tools: tuple[str, ...] = (), authority: str = "") -> Recipe:
    """The build context of an image, with the safe defaults of package managers."""
    told = Packages(install_scripts=False, sdists=False, minimum_age_days=0, defaults=load_defaults())
    return recipe(
        known_name(name),
        load_layers(),
        environment=told.environment(),
        files=told.files(),
        tools=tools,
        mise=load_mise() if tools else None,
        authority=authority,
    )


class State(Enum):
    """Of an image of ours in an engine. OUTDATED: this cloister would make it otherwise."""

    MISSING = "no"
    OUTDATED = "outdated"
    BUILT = "yes"


def state(engine: Engine, name: str) -> State:
    """Whether an image has been built, and is what cloister would build."""
    recipe_hash = image_label(engine, tag(name), LABEL_RECIPE)
    if recipe_hash is None:
        return State.MISSING
    return State.BUILT if recipe_hash == image_recipe(name).recipe_hash() else State.OUTDATED


def checked(wish: Wish) -> Wish:
    """The same, or a UsageError."""
    known_name(wish.name)
    platform = wish.platform if "/" in wish.platform or not wish.platform else f"linux/{wish.platform}"
    if platform and platform not in PLATFORMS:
        raise UsageError(
            f"--platform: {wish.platform!r} is not supported", details=f"expected: {', '.join(PLATFORMS)}"
        )
    if wish.apt_mirror and not _MIRROR.fullmatch(wish.apt_mirror):
        raise UsageError(
            f"--apt-mirror: {wish.apt_mirror!r} is no address of a mirror",
            details="expected: an address without a name and a password, which the image's history would keep",
            resolution="for example: --apt-mirror http://deb.debian.org/debian",
        )
    if wish.network and wish.network not in NETWORKS:
        raise UsageError(f"--network: {wish.network!r} is none", details=f"expected: {', '.join(NETWORKS)}")
    for tool in wish.tools:
        checked_tool(tool)
    return replace(wish, platform=platform, network="" if wish.network == "default" else wish.network)


def build(engine: Engine, wish: Wish, hear: Callable[[Step | Output], None]) -> Built:
    """Build what was asked for, which `checked` has seen. HostError if it fails."""
    context = image_recipe(wish.name, tools=wish.tools, authority=wish.authority)
    base = bases.resolve(
        engine,
        wish.base,
        platform=wish.platform,
        hear=lambda line: hear(Output(stage="", text=line)),
    )
    platform = wish.platform or engine.platform
    content = context.content_hash(base_id=base.identity, platform=platform)
    version = LATEST if platform == engine.platform else f"{LATEST}-{platform.partition('/')[2]}"
    reference, alias = tag(wish.name, content), tag(wish.name, version)
    if not wish.no_cache and image_id(engine, reference) is not None:
        engine.ask("tag", reference, alias)
        return Built(reference=reference, alias=alias, fresh=False)
    reader = Reader()

    def read(line: str) -> None:
        if event := reader.feed(line):
            hear(event)

    with tempfile.TemporaryDirectory(prefix="cloister-image-") as directory:
        _write(context, directory)
        command = BuildCommand(
            context=directory,
            tags=(reference, alias),
            labels={
                LABEL_IMAGE: wish.name,
                LABEL_BASE: wish.base,
                LABEL_CONTENT: content,
                LABEL_RECIPE: image_recipe(wish.name).recipe_hash(),
            },
            base=base.reference,
            platform=wish.platform,
            network=wish.network,
            apt_mirror=wish.apt_mirror,
            no_cache=wish.no_cache,
        )
        argv = arguments(
            command,
            podman=engine.name == PODMAN,
            buildkit=engine.buildkit,
            buildx=engine.buildx,
            proxies=[name for name in PROXIES if name in engine.environment],
        )
        code = engine.follow(argv, timeout_s=_BUILD_S, hear=read)
    if code != 0:
        raise failure(wish.name, engine.name, code, *reader.failure())
    return Built(reference=reference, alias=alias, fresh=True)


def _write(context: Recipe, directory: str) -> None:
    for path, text in context.files.items():
        target = os.path.join(directory, path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(target, 0o644)
