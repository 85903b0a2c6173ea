"""A secret value that does not show itself by accident.

Rule 1: it prints as its name. It cannot be formatted, compared, hashed, copied or pickled.
Rule 2: `reveal` is the only way to the bytes; tests/unit/test_secret.py lists who calls it.
"""

from __future__ import annotations

from typing import NoReturn


class Secret:
    """The value of a credential, or a confidential part of it. `name` is for people."""

    __slots__ = ("_value", "name")

    def __init__(self, name: str, value: bytes) -> None:
        self.name = name
        self._value = value

    def reveal(self) -> bytes:
        """The bytes themselves: only for the request that carries them and for what takes them out of answers."""
        return self._value

    def __repr__(self) -> str:
        return f"<secret {self.name!r}>"

    __str__ = __repr__

    def __format__(self, _: str) -> str:
        return repr(self)

    def __eq__(self, _: object) -> NoReturn:
        raise TypeError("secrets are not compared")

    __hash__ = None  # type: ignore[assignment]  # documented: makes the type unhashable

    def __reduce__(self) -> NoReturn:
        raise TypeError("secrets are not copied or pickled")
