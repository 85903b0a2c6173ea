"""Show text that an agent may have written, so that it cannot paint a terminal or pass for other text."""

from __future__ import annotations

import unicodedata

_QUOTED_LIMIT = 80
# Control, format (bidirectional overrides, zero-width), surrogate, private use, unassigned, line separators.
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def visible(text: str) -> str:
    """`text` with what a terminal would obey or hide written as escapes; newlines and tabs stay."""
    return "".join(c if c in "\n\t" or not _hidden(c) else _escape(c) for c in text)


def quoted(value: object) -> str:
    """A configuration value as a person wrote it, on one line, cut."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return _cut(visible(_repr(value)).replace("\n", " "))
    return f'"{_cut(visible(value).replace(chr(10), chr(92) + "n"))}"'


def _repr(value: object) -> str:
    try:
        return repr(value)
    except (
        ValueError
    ):  # sys.set_int_max_str_digits: a hexadecimal number can be read at any length, not shown
        return "a very long number"


def _hidden(character: str) -> bool:
    return unicodedata.category(character) in _HIDDEN_CATEGORIES


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _cut(text: str) -> str:
    return text if len(text) <= _QUOTED_LIMIT else text[:_QUOTED_LIMIT] + "…"
