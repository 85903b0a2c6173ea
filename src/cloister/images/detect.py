"""Tell from a project's files which image suits it, and why.

Rule 1: this module does no I/O; the texts come from an agent's workspace and are taken apart with care: what cannot
        be read is said to be so, and counts for nothing.
Rule 2: several languages mean `full`, none means `base`: never a guess.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass

from cloister.images.layer import BASE, FULL
from cloister.images.tools import is_tool

MISE_FILES = ("mise.toml", ".mise.toml", ".config/mise.toml")
TOOL_VERSIONS = ".tool-versions"
_MARKERS = {
    "package.json": "ts",
    "pyproject.toml": "python",
    "setup.py": "python",
    "requirements.txt": "python",
    "Cargo.toml": "rust",
    "go.mod": "go",
    "mix.exs": "elixir",
}
_TOOLS = {
    "node": "ts", "nodejs": "ts", "bun": "ts", "deno": "ts", "pnpm": "ts", "yarn": "ts",
    "python": "python", "uv": "python", "poetry": "python",
    "go": "go", "golang": "go", "rust": "rust", "elixir": "elixir", "erlang": "elixir",
}  # fmt: skip
FILES = (*MISE_FILES, TOOL_VERSIONS, *_MARKERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """An image's name, a sentence for each thing that led to it, and tools of which the project names a version."""

    image: str
    reasons: tuple[str, ...]
    versions: tuple[str, ...] = ()


def detect(untrusted_files: Mapping[str, str | None]) -> Detection:
    """Judge a project by those of FILES that it has: name → text; None for one that cannot be read."""
    found: dict[str, None] = {}
    versions: dict[str, str] = {}
    reasons = []
    for name in FILES:
        if name not in untrusted_files:
            continue
        tools, reason = _judged(name, untrusted_files[name])
        found |= dict.fromkeys(_TOOLS.get(tool, tool) for tool in tools)
        versions = {**{tool: f"{tool}@{version}" for tool, version in tools.items() if version}, **versions}
        reasons.append(f"{name}: {reason}")
    named = tuple(text for text in versions.values() if is_tool(text))
    if len(found) == 1:
        return Detection(image=next(iter(found)), reasons=tuple(reasons), versions=named)
    if found:
        several = f"{len(found)} languages: {', '.join(found)}"
        return Detection(image=FULL, reasons=(*reasons, several), versions=named)
    return Detection(image=BASE, reasons=tuple(reasons) or ("no file of the project names a language",))


def _judged(name: str, untrusted_text: str | None) -> tuple[dict[str, str], str]:
    """The tools that one file speaks for, or an image, with their versions or nothing; and why."""
    if name in _MARKERS:
        return {_MARKERS[name]: ""}, f"a project for {_MARKERS[name]}"
    if untrusted_text is None:
        return {}, "it cannot be read, so it counts for nothing"
    tools = _versions(untrusted_text) if name == TOOL_VERSIONS else _mise(untrusted_text)
    if tools is None:
        return {}, "it is not valid TOML, so it counts for nothing"
    known = {tool: version for tool, version in tools.items() if tool in _TOOLS}
    return known, f"it names {', '.join(known)}" if known else "it names no language's tool"


def _versions(untrusted_text: str) -> dict[str, str]:
    """The tools of asdf's file: one a line, with versions behind it, the preferred first, and comments."""
    lines = (line.partition("#")[0].split() for line in untrusted_text.splitlines())
    return {words[0]: words[1] if len(words) > 1 else "" for words in lines if words}


def _mise(untrusted_text: str) -> dict[str, str] | None:
    """The tools of mise's file; `core:node` is `node`. A version is a text, a list of them, or a table's `version`."""
    try:
        tools = tomllib.loads(untrusted_text).get("tools")
    except (ValueError, RecursionError):
        return None
    found = {}
    for key, value in tools.items() if isinstance(tools, dict) else ():
        first = value[0] if isinstance(value, list) and value else value
        version = first.get("version") if isinstance(first, dict) else first
        found[key.partition(":")[2] or key] = version if isinstance(version, str) else ""
    return found
