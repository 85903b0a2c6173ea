"""Make the one text that goes into a sandbox of the modules in inside/."""

from __future__ import annotations

import ast
import functools
from importlib import resources

_MODULES = (
    "talk",
    "hellos",
    "egress",
    "requests",
    "framing",
    "http2",
    "websockets",
    "streams",
    "planting",
    "kernel",
    "values",
    "main",
)  # the order in which probes run
_LEFT_OUT = ("__future__", "cloister")


@functools.cache
def text(way: str = "") -> str:
    """The program: valid on its own, on any Python since 3.9.

    `way` stands after "talk": a module's text in which `make compare` defines anew how a network is reached.
    """
    parts = ["from __future__ import annotations\n"]
    folder = resources.files("cloister.verify.inside")
    for name in _MODULES:
        parts.append(_joinable(folder.joinpath(f"{name}.py").read_text(encoding="utf-8")))
        if name == "talk":
            parts.append(_joinable(way))
    return "".join(parts)


def _joinable(source: str) -> str:
    """A module without its imports of others that are in the text."""
    lines = source.splitlines(keepends=True)
    for node in reversed(ast.parse(source).body):
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] in _LEFT_OUT:
            del lines[node.lineno - 1 : node.end_lineno]
    return "".join(lines)
