"""The presets that cloister ships: hosts of well-known services, as data in presets/*.toml.

Rule 1: hosts to which one only uploads are left out, and said to be (`left_out`). Where downloads and uploads share a
        host, its requests are read and only reading passes (`reading`: what it needs to POST beside).
Rule 2: a preset's text is ours, yet parsed with the same judges as a user's: a bad one cannot ship.
Rule 3: a credential of a preset goes where the service takes it, never "wherever the placeholder stands": on a host
        that shows what it is sent (an issue, a package), that would publish the value.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cloister.config.injection import parse_injection
from cloister.config.place import Place
from cloister.policy.match import parse_destination
from cloister.policy.paths import parse_glob
from cloister.types import Injection, Rule

_DIRECTORY = os.path.join(os.path.dirname(__file__), "presets")
_SUFFIX = ".toml"
_ASKS_USER = "basic:?"
_READING = frozenset({"GET", "HEAD"})
CREDENTIAL_KIND = "credential"  # a preset without hosts to allow


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialPlace:
    """A host of a service, and how it takes the credential there. `injection` is None where a user must be named."""

    host: str
    injection: Injection | None
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialPreset:
    """How a service takes its credential, and where its tools look for it. See docs/reference for the texts' `{…}`.

    Hosts that a user names instead are treated as the first place's host. `own_hosts`: there is none to fall back on.
    """

    shape: str
    places: tuple[CredentialPlace, ...]
    environment: Mapping[str, str]
    files: Mapping[str, str]
    own_hosts: bool

    def places_of(self, host: str) -> tuple[CredentialPlace, ...]:
        """How a host of the user's is treated."""
        known = {place.host for place in self.places}
        like = host if host in known else self.places[0].host
        return tuple(replace(place, host=host) for place in self.places if place.host == like)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One service. `left_out` are hosts of it that stay refused; `git` those that hold repositories.

    `reading` are hosts that are for GET and HEAD alone, with the paths that reading needs to POST to.
    """

    name: str
    title: str
    kind: str
    hosts: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    note: str = ""
    git: tuple[str, ...] = ()
    reading: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    credential: CredentialPreset | None = None

    def remarks(self, host: str) -> str:
        """What a person should know of the grant of a host, in one line."""
        remarks = ["read only" if host in self.reading else "by name only"]
        remarks += [self.note] if self.note else []
        remarks += [f"left out: {', '.join(self.left_out)}"] if self.left_out else []
        return "; ".join(remarks)

    def rules(self) -> tuple[Rule, ...]:
        """One grant per host; a second one for what reading needs to POST."""
        rules = []
        for text in self.hosts:
            destination = parse_destination(text)
            rule = Rule(
                id=f"preset:{self.name}:{text}",
                pattern=destination.pattern,
                ports=destination.grant_ports,
                transport=destination.transport,
                note=self.remarks(text),
            )
            posted = self.reading.get(text)
            rules += [rule] if posted is None else limited(rule, posted)
        return tuple(rules)


def limited(rule: Rule, posted: Sequence[str]) -> list[Rule]:
    """The rules that open a host for reading alone."""
    rules = [replace(rule, methods=_READING)]
    if posted:
        paths = tuple(map(parse_glob, posted))
        rules.append(replace(rule, id=f"{rule.id}:post", methods=frozenset({"POST"}), paths=paths))
    return rules


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
        git=tuple(raw.get("git", ())),
        reading={host: tuple(paths) for host, paths in raw.get("reading", {}).items()},
        credential=_credential(name, raw["credential"]) if "credential" in raw else None,
    )


def _credential(name: str, raw: Mapping[str, Any]) -> CredentialPreset:  # Any: TOML
    ours = Place(source=None, path=(), option=f"preset {name}")
    places = tuple(
        CredentialPlace(
            host=host,
            injection=None if place["inject"] == _ASKS_USER else parse_injection(place["inject"], ours),
            paths=tuple(map(parse_glob, place.get("paths", ()))),
        )
        for place in raw["place"]
        for host in place.get("hosts") or [""]
    )
    return CredentialPreset(
        shape=raw["placeholder"],
        places=places,
        environment=raw.get("env", {}),
        files=raw.get("files", {}),
        own_hosts=places[0].host != "",
    )
