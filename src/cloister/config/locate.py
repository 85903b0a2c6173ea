"""Find the line of every key and list item in a TOML text, which `tomllib` does not tell.

Rule 1: it runs on text that `tomllib` has accepted, so it need not validate; a text that it cannot follow
        gives fewer entries, never an exception, and `line_of` then names the nearest enclosing key.
Rule 2: a path is the keys and list indices from the top: ("network", "rule", 0, "host").
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping

Path = tuple[str | int, ...]

_SPACE = frozenset(" \t\r\n")
_VALUE_ENDS = frozenset(",]}#\n")


def lines(text: str) -> dict[Path, int]:
    """The line (from 1) on which each key, table and list item begins."""
    scanner = _Scanner(text)
    try:
        scanner.document()
    except (IndexError, tomllib.TOMLDecodeError, RecursionError):  # not TOML after all: what was found so far
        return scanner.found
    return scanner.found


def line_of(found: Mapping[Path, int], path: Path) -> int:
    """The line of `path`, or of the nearest thing that holds it; 1 if there is none."""
    for length in range(len(path), 0, -1):
        if path[:length] in found:
            return found[path[:length]]
    return 1


class _Scanner:
    """One pass over the text. An IndexError means that the text ended early."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.found: dict[Path, int] = {}
        self._last_index: dict[Path, int] = {}  # of each array of tables
        self._counted = (0, 1)  # position, line: lines are counted once, forwards

    def document(self) -> None:
        prefix: Path = ()
        while self._skip_blank():
            if self.text[self.position] == "[":
                prefix = self._header()
            else:
                self._pair(prefix)

    def _header(self) -> Path:
        start = self.position
        is_array = self.text.startswith("[[", self.position)
        self.position += 2 if is_array else 1
        keys = self._dotted_key("]")
        self.position += 2 if is_array else 1
        path: Path = ()
        for number, key in enumerate(keys):
            path += (key,)
            if number < len(keys) - 1 and path in self._last_index:
                path += (self._last_index[path],)
        self._note(path, start)
        if is_array:
            self._last_index[path] = self._last_index.get(path, -1) + 1
            path += (self._last_index[path],)
            self._note(path, start)
        return path

    def _pair(self, prefix: Path) -> None:
        start = self.position
        path = prefix
        for key in self._dotted_key("="):
            path += (key,)
            self._note(path, start)
        self.position += 1  # the equals sign
        self._value(path)

    def _value(self, path: Path) -> None:
        self._skip_blank()
        character = self.text[self.position]
        if character == "[":
            self._array(path)
        elif character == "{":
            self._inline_table(path)
        elif character in "\"'":
            self._string()
        else:
            while self.position < len(self.text) and self.text[self.position] not in _VALUE_ENDS:
                self.position += 1

    def _array(self, path: Path) -> None:
        self.position += 1
        index = 0
        while self._skip_blank(",") and self.text[self.position] != "]":
            self._note((*path, index), self.position)
            self._value((*path, index))
            index += 1
        self.position += 1

    def _inline_table(self, path: Path) -> None:
        self.position += 1
        while self._skip_blank(",") and self.text[self.position] != "}":
            self._pair(path)
        self.position += 1

    def _string(self) -> None:
        quote = self.text[self.position]
        triple = self.text.startswith(quote * 3, self.position)
        delimiter = quote * 3 if triple else quote
        self.position += len(delimiter)
        while not self.text.startswith(delimiter, self.position):
            escaped = quote == '"' and self.text[self.position] == "\\"
            self.position += 2 if escaped else 1
        self.position += len(delimiter)
        while triple and self.text.startswith(quote, self.position):  # up to two quotes may precede the end
            self.position += 1

    def _dotted_key(self, end: str) -> list[str]:
        start = self.position
        while self.text[self.position] != end:
            if self.text[self.position] in "\"'":
                self._string()
            else:
                self.position += 1
        value: object = tomllib.loads(f"{self.text[start : self.position]} = 0")
        keys = []
        while isinstance(value, dict):
            key, value = next(iter(value.items()))
            keys.append(key)
        return keys

    def _skip_blank(self, also: str = "") -> bool:
        """Go to the next token; False at the end of the text."""
        while self.position < len(self.text):
            character = self.text[self.position]
            if character == "#":
                end = self.text.find("\n", self.position)
                self.position = end if end >= 0 else len(self.text)
            elif character in _SPACE or character in also:
                self.position += 1
            else:
                return True
        return False

    def _note(self, path: Path, position: int) -> None:
        counted, line = self._counted
        line += self.text.count("\n", counted, position) if position > counted else 0
        self._counted = (max(position, counted), line)
        self.found.setdefault(path, line)
