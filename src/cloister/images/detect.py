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
    """An image's name, and a sentence for each thing that led to it."""

    image: str
    reasons: tuple[str, ...]


def detect(untrusted_files: Mapping[str, str | None]) -> Detection:
    """Judge a project by those of FILES that it has: name → text; None for one that cannot be read."""
    found: dict[str, None] = {}
    reasons = []
    for name in FILES:
        if name not in untrusted_files:
            continue
        images, reason = _judged(name, untrusted_files[name])
        found |= dict.fromkeys(images)
        reasons.append(f"{name}: {reason}")
    if len(found) == 1:
        return Detection(image=next(iter(found)), reasons=tuple(reasons))
    if found:
        return Detection(image=FULL, reasons=(*reasons, f"{len(found)} languages: {', '.join(found)}"))
    return Detection(image=BASE, reasons=tuple(reasons) or ("no file of the project names a language",))


def _judged(name: str, untrusted_text: str | None) -> tuple[list[str], str]:
    """The images that one file speaks for, and why."""
    if name in _MARKERS:
        return [_MARKERS[name]], f"a project for {_MARKERS[name]}"
    if untrusted_text is None:
        return [], "it cannot be read, so it counts for nothing"
    tools = _versions(untrusted_text) if name == TOOL_VERSIONS else _mise(untrusted_text)
    if tools is None:
        return [], "it is not valid TOML, so it counts for nothing"
    named = [tool for tool in tools if tool in _TOOLS]
    images = list(dict.fromkeys(_TOOLS[tool] for tool in named))
    return images, f"it names {', '.join(named)}" if named else "it names no language's tool"


def _versions(untrusted_text: str) -> list[str]:
    """The tools of asdf's file: one a line, with versions behind it and comments."""
    lines = (line.partition("#")[0].split() for line in untrusted_text.splitlines())
    return [words[0] for words in lines if words]


def _mise(untrusted_text: str) -> list[str] | None:
    """The tools of mise's file; `core:node` is `node`."""
    try:
        tools = tomllib.loads(untrusted_text).get("tools")
    except (ValueError, RecursionError):
        return None
    return [key.partition(":")[2] or key for key in tools] if isinstance(tools, dict) else []
