"""Which ports the development servers of a project listen on, by its files (data: frameworks.toml).

Rule 1: the files are the agent's to write, so what is found is a proposal: ports that a database or another service of
        this machine is looked for at are never among it, and the session says what it publishes.
Rule 2: no I/O: `detect` takes the texts of `FILES`. One that cannot be read as what it should be proves nothing.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources

from cloister.policy.published import GATEWAY_PORTS

PACKAGE = "package.json"
_LOWEST, _HIGHEST = 1024, 32767  # beyond: the kernel's own choice for outgoing connections
_DEPENDENCIES = ("dependencies", "devDependencies")
_PORT_OF_A_COMMAND = re.compile(r"(?:^|\s)(?:PORT=|--port[= ]|-p[= ]?)(\d{1,5})(?=\s|$)")
_BETWEEN_COMMANDS = re.compile(r"&&|\|\||[;&|]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Framework:
    """A development server. `words` are of files of the project."""

    name: str
    port: int
    npm: frozenset[str]
    files: frozenset[str]
    words: Mapping[str, tuple[str, ...]]
    commands: frozenset[str]
    hides: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Detected:
    """A port of the sandbox, and why: the framework and the file that shows it."""

    port: int
    framework: str
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """The data file. `never`: ports that are not believed."""

    frameworks: tuple[Framework, ...]
    never: frozenset[int]

    @property
    def files(self) -> frozenset[str]:
        """The names, in the project's root, of which `detect` wants the texts."""
        named = (one.files | one.words.keys() for one in self.frameworks)
        return frozenset({PACKAGE}).union(*named)


def load() -> Catalogue:
    """The catalogue that comes with cloister."""
    data = tomllib.loads(resources.files("cloister.sandbox").joinpath("frameworks.toml").read_text("utf-8"))
    return Catalogue(
        frameworks=tuple(
            Framework(
                name=entry["name"],
                port=entry["port"],
                npm=frozenset(entry.get("npm", ())),
                files=frozenset(entry.get("files", ())),
                words={name: tuple(words) for name, words in entry.get("words", {}).items()},
                commands=frozenset(entry.get("commands", ())),
                hides=frozenset(entry.get("hides", ())),
            )
            for entry in data["framework"]
        ),
        never=frozenset(data["never"]) | GATEWAY_PORTS,
    )


def detect(catalogue: Catalogue, untrusted_texts: Mapping[str, str]) -> tuple[Detected, ...]:
    """The ports of the servers that the files show, each once, in the catalogue's order."""
    package = _package(untrusted_texts.get(PACKAGE, ""))
    names, commands = _dependencies(package), list(_commands(package))
    shown = {
        one.name: file for one in catalogue.frameworks if (file := _shown_by(one, names, untrusted_texts))
    }
    hidden = frozenset[str]().union(*(one.hides for one in catalogue.frameworks if one.name in shown))
    found: dict[int, Detected] = {}
    for one in catalogue.frameworks:
        if one.name not in shown or one.name in hidden:
            continue
        for port in _ports(one, commands, catalogue.never):
            found.setdefault(port, Detected(port=port, framework=one.name, file=shown[one.name]))
    return tuple(found.values())


def _shown_by(framework: Framework, names: frozenset[str], texts: Mapping[str, str]) -> str:
    """The file that shows the framework; empty if none does."""
    if framework.npm & names:
        return PACKAGE
    for name in sorted(framework.files & texts.keys()):
        return name
    for name, words in framework.words.items():
        text = texts.get(name, "")
        if any(re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text, re.IGNORECASE) for word in words):
            return name
    return ""


def _ports(framework: Framework, commands: list[list[str]], never: frozenset[int]) -> list[int]:
    """Those that the project's scripts give to this server; its own default if they give none."""
    given = []
    for words in commands:
        if framework.commands.isdisjoint(words):
            continue
        for match in _PORT_OF_A_COMMAND.finditer(" ".join(words)):
            port = int(match[1])
            if _LOWEST <= port <= _HIGHEST and port not in never:
                given.append(port)
    return given or [framework.port]


def _package(untrusted_text: str) -> dict[str, object]:
    try:
        package = json.loads(untrusted_text or "{}")
    except (ValueError, RecursionError):
        return {}
    return package if isinstance(package, dict) else {}


def _dependencies(package: Mapping[str, object]) -> frozenset[str]:
    tables = [table for key in _DEPENDENCIES if isinstance(table := package.get(key), dict)]
    return frozenset(name for table in tables for name in table)


def _commands(package: Mapping[str, object]) -> Iterator[list[str]]:
    """The commands of all scripts, as words."""
    scripts = package.get("scripts")
    for script in scripts.values() if isinstance(scripts, dict) else ():
        if isinstance(script, str):
            for command in _BETWEEN_COMMANDS.split(script):
                yield command.split()
