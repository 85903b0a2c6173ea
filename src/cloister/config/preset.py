"""The presets that cloister ships: hosts of well-known services, as data in presets/*.toml.

Rule 1: hosts to which one only uploads are left out, and said to be (`left_out`). In this release a preset
        works by name only: where downloads and uploads share a host, both pass.
Rule 2: a preset's text is ours, yet parsed with the same judges as a user's: a bad one cannot ship.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass

from cloister.policy.match import parse_destination
from cloister.types import Rule

_DIRECTORY = os.path.join(os.path.dirname(__file__), "presets")
_SUFFIX = ".toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One service. `left_out` are hosts of it that stay refused."""

    name: str
    title: str
    kind: str
    hosts: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    note: str = ""

    @property
    def remarks(self) -> str:
        """What a person should know of the grant, in one line."""
        remarks = [self.note] if self.note else []
        remarks += [f"left out: {', '.join(self.left_out)}"] if self.left_out else []
        return "; ".join(["by name only", *remarks])

    def rules(self) -> tuple[Rule, ...]:
        """One grant per host."""
        rules = []
        for text in self.hosts:
            destination = parse_destination(text)
            rules.append(
                Rule(
                    id=f"preset:{self.name}:{text}",
                    pattern=destination.pattern,
                    ports=destination.grant_ports,
                    transport=destination.transport,
                    note=self.remarks,
                )
            )
        return tuple(rules)


def names() -> tuple[str, ...]:
    """Every preset, sorted."""
    return tuple(sorted(f.removesuffix(_SUFFIX) for f in os.listdir(_DIRECTORY) if f.endswith(_SUFFIX)))


def load_presets() -> dict[str, Preset]:
    """Every preset by its name."""
    return {name: _load(name) for name in names()}


def _load(name: str) -> Preset:
    with open(os.path.join(_DIRECTORY, name + _SUFFIX), "rb") as file:
        raw = tomllib.load(file)
    return Preset(
        name=name,
        title=raw["title"],
        kind=raw["kind"],
        hosts=tuple(raw["hosts"]),
        left_out=tuple(raw.get("left_out", ())),
        note=raw.get("note", ""),
    )
