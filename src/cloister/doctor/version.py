"""Read a version as kernels and programs print it."""

from __future__ import annotations


def version(text: str) -> tuple[int, ...]:
    """The leading numbers: (6, 1, 0) of "6.1.0-18-amd64", (0, 8, 0) of "bubblewrap 0.8.0", () of "none"."""
    word = next((part for part in text.split() if part[:1].isdigit()), "")
    numbers: list[int] = []
    for part in word.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    return tuple(numbers)
