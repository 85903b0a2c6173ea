"""What [sandbox] says of how the sandbox is made: runtime, image, where the gateway runs, how the workspace gets in.

Rule 1: an image's name goes into an engine's command line: it begins with a letter or digit, and is all of characters
        that references are made of. Which image it is, the engine says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cloister.config.load import Loaded, nearest
from cloister.config.place import Place, option, place_of

EMBEDDED = "embedded"
RUNTIMES = (EMBEDDED, "docker", "podman")
LATER_RUNTIMES = ("kubernetes",)
WORKSPACES = ("bind", "volume", "clone")
GATEWAYS = ("host", "container")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """How a sandbox is made. `image` is empty where none is named."""

    runtime: str = EMBEDDED
    image: str = ""
    gateway: str = "host"
    workspace: str = "bind"
    tmp_exec: bool = False

    def document(self) -> dict[str, object]:
        """What the plan's "sandbox" value holds of it."""
        return {
            "runtime": self.runtime,
            "image": self.image,
            "gateway": self.gateway,
            "workspace": self.workspace,
            "tmp_exec": self.tmp_exec,
        }


def made(
    files: Sequence[Loaded],
    *,
    runtime: str | None = None,
    image: str | None = None,
    workspace: str | None = None,
) -> Made:
    """Judge and merge: the user's file, the project's, the command line."""
    found = Made()
    for file in files:
        found = _of_file(found, file)
    if runtime is not None:
        found = replace(found, runtime=_runtime(runtime, option("--runtime")))
    if image is not None:
        found = replace(found, image=_image(image, option("--image")))
        if found.runtime == EMBEDDED:
            raise option("--image").error(
                "the embedded runtime has no image: its tools are those of this machine",
                expected=f"--runtime {' or '.join(one for one in RUNTIMES if one != EMBEDDED)} with it",
                found=image,
            )
    if workspace is not None:
        found = replace(found, workspace=_one_of(workspace, WORKSPACES, option("--workspace-kind")))
    return found


def _of_file(found: Made, file: Loaded) -> Made:
    table = file.document.sandbox
    if table.runtime is not None:
        found = replace(found, runtime=_runtime(table.runtime, place_of(file, "sandbox", "runtime")))
    if table.image is not None:
        found = replace(found, image=_image(table.image, place_of(file, "sandbox", "image")))
    if table.gateway is not None:
        found = replace(found, gateway=_one_of(table.gateway, GATEWAYS, place_of(file, "sandbox", "gateway")))
    if table.tmp_exec is not None:
        found = replace(found, tmp_exec=table.tmp_exec)
    if table.workspace is not None:
        place = place_of(file, "sandbox", "workspace")
        found = replace(found, workspace=_one_of(table.workspace, WORKSPACES, place))
    return found


def _runtime(text: str, place: Place) -> str:
    if text in LATER_RUNTIMES:
        raise place.error(
            f"runtime {text!r} comes with a later release", expected=", ".join(RUNTIMES), found=text
        )
    return _one_of(text, RUNTIMES, place)


def _one_of(text: str, known: Sequence[str], place: Place) -> str:
    if text not in known:
        raise place.error(
            "there is no such kind", expected=", ".join(known), found=text, resolution=nearest(text, known)
        )
    return text


def _image(text: str, place: Place) -> str:
    if not _IMAGE.fullmatch(text):
        raise place.error(
            "this is no name of an image", expected='a reference, as in "debian:bookworm"', found=text
        )
    return text
