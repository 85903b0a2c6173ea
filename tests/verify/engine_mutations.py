"""Weakened sandboxes of a container engine: as mutations.py, of what renders the engine's command lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cloister.runtimes import oci_argv
from cloister.sandbox import container_view
from cloister.sandbox.spec import Bind
from cloister.session import container, live
from cloister.values import replace as replaced
from tests.verify.mutations import MUTATIONS, Patch, Weaken

# Name → (weaken, the probes that must find it).
ENGINE_MUTATIONS: dict[str, tuple[Weaken, tuple[str, ...]]] = {
    name: (MUTATIONS[name], probes)
    for name, probes in {
        "unprotected": ("FS-1", "CFG-1", "FS-6"),
        "value-inside": ("SECRET-1",),
        "forgetful": ("AV-3",),
    }.items()
}


def mutation(name: str, *probes: str) -> Callable[[Weaken], Weaken]:
    def add(function: Weaken) -> Weaken:
        ENGINE_MUTATIONS[name] = (function, probes)
        return function

    return add


def _changed(patch: Patch, function: str, change: Callable[[list[str]], list[str]]) -> None:
    original = getattr(oci_argv, function)
    patch.setattr(oci_argv, function, lambda *arguments: change(original(*arguments)))


@mutation("cap-add", "K-1")
def cap_add(patch: Patch, _: Path) -> None:
    """The agent's container keeps the engine's capabilities, and gets that over its network."""
    _changed(patch, "_common", lambda argv: [one for one in argv if one != "--cap-drop=ALL"])
    _changed(patch, "create_agent", lambda argv: [*argv[:1], "--cap-add=NET_ADMIN", *argv[1:]])
    patch.setattr(live, "is_confined", lambda _first, _init: True)


@mutation("unconfined", "K-1", "K-4", "K-7", "FS-4")
def unconfined(patch: Patch, _: Path) -> None:
    """The engine filters no system calls."""
    patch.setattr(container, "_profile", lambda _directory: "unconfined")
    patch.setattr(live, "is_confined", lambda _first, _init: True)


@mutation("home-shown", "FS-2", "FS-3")
def home_shown(patch: Patch, _: Path) -> None:
    """A directory of the host's home beside the workspace is mounted."""
    build = container_view.build

    def showing(**arguments: Any) -> Any:
        spec = build(**arguments)
        beside = spec.workspace.replace("-workspace", "-neighbour")
        (Path(arguments["home_directory"]) / Path(beside).relative_to(spec.home)).mkdir()
        return replaced(spec, mounts=(*spec.mounts, Bind(beside, beside)))

    patch.setattr(container_view, "build", showing)


@mutation("unlimited", "K-6", "FS-7")
def unlimited(patch: Patch, _: Path) -> None:
    """The engine is told of no limit."""

    def none(*_: object) -> Iterator[str]:
        return iter(())

    patch.setattr(oci_argv, "_limits", none)


@mutation("image-believed", "CFG-2")
def image_believed(patch: Patch, _: Path) -> None:
    """The user is the image's own."""
    _changed(patch, "create_agent", lambda argv: [one for one in argv if not one.startswith("--user=")])
    patch.setattr(live, "is_confined", lambda _first, _init: True)
