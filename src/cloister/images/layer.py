"""The layers that images are made of, as data in layers/*.toml.

Rule 1: `base` lies under every image; a layer that `includes` others is they, on one base.
Rule 2: a layer's text is ours; nothing of a project or a host is in it.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass

from cloister.errors import UsageError
from cloister.images.tools import Mise

BASE = "base"
FULL = "full"
_DIRECTORY = os.path.join(os.path.dirname(__file__), "layers")
_MISE = os.path.join(os.path.dirname(__file__), "mise.toml")
_SUFFIX = ".toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer. `commands` are lines of sh, run as root; `provides` are programs that must be there afterwards.

    `choices`: of these sets of packages, the first that the distribution has, else the last.
    """

    name: str
    title: str
    packages: tuple[str, ...] = ()
    choices: tuple[tuple[str, ...], ...] = ()
    commands: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    provides: tuple[str, ...] = ()
    includes: tuple[str, ...] = ()


def names() -> tuple[str, ...]:
    """The images that can be built, `base` first and `full` last."""
    found = {f.removesuffix(_SUFFIX) for f in os.listdir(_DIRECTORY) if f.endswith(_SUFFIX)}
    return (BASE, *sorted(found - {BASE, FULL}), FULL)


def load_layers() -> dict[str, Layer]:
    """Every layer by its name."""
    return {name: _load(name) for name in names()}


def known_name(name: str) -> str:
    """The name of an image that there is; UsageError with the nearest one otherwise."""
    known = names()
    if name in known:
        return name
    near = difflib.get_close_matches(name.lower(), (*known, *_ALIASES), n=1, cutoff=0.5)
    meant = _ALIASES.get(near[0], near[0]) if near else ""
    raise UsageError(
        f"there is no image {name!r}",
        details=f"expected: {', '.join(known)}",
        resolution=f"did you mean: cloister image build {meant}" if meant else "run: cloister image list",
    )


_ALIASES = {
    "node": "ts", "nodejs": "ts", "javascript": "ts", "js": "ts", "typescript": "ts", "bun": "ts",
    "py": "python", "golang": "go", "rs": "rust", "cargo": "rust", "erlang": "elixir", "mix": "elixir", "all": "full",
}  # fmt: skip


def load_mise() -> Mise:
    """Where mise is, from mise.toml."""
    with open(_MISE, "rb") as file:
        raw = tomllib.load(file)["architecture"]
    return Mise(sources={name: (entry["url"], entry["sha512"]) for name, entry in raw.items()})


def _load(name: str) -> Layer:
    with open(os.path.join(_DIRECTORY, name + _SUFFIX), "rb") as file:
        raw = tomllib.load(file)
    environment: Mapping[str, str] = raw.get("environment", {})
    return Layer(
        name=name,
        title=raw["title"],
        packages=tuple(raw.get("packages", ())),
        choices=tuple(tuple(one) for one in raw.get("choices", ())),
        commands=tuple(raw.get("commands", ())),
        environment=tuple(environment.items()),
        provides=tuple(raw.get("provides", ())),
        includes=tuple(raw.get("includes", ())),
    )
