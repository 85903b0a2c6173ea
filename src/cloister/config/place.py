"""Where a value of the configuration stands, for its errors: a key of a file, or an option of the command line."""

from __future__ import annotations

from dataclasses import dataclass

from cloister.config.load import Loaded, Source
from cloister.config.locate import Path
from cloister.config.wording import quoted
from cloister.errors import CloisterError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a value stands, for its error: a key of a file, or an option of the command line."""

    source: Source | None
    path: Path
    option: str = ""

    def error(self, reason: str, *, expected: str, found: object, resolution: str = "") -> CloisterError:
        if self.source is None:
            return UsageError(
                f"{self.option}: {reason}",
                details=f"expected: {expected}\nfound: {quoted(found)}",
                resolution=resolution,
            )
        return self.source.error(
            self.path, f"{self._key()}: {reason}", expected=expected, found=found, resolution=resolution
        )

    def _key(self) -> str:
        """The key for people: `[network] allow`, `[[network.rule]] paths`. A name in it may be anybody's."""
        names = [quoted(part)[1:-1] for part in self.path if isinstance(part, str)]
        if names[:2] == ["network", "rule"]:
            return " ".join(["[[network.rule]]", *names[2:]])
        if names[:1] == ["credential"]:
            return " ".join(["[[credential]]", *names[1:]])
        if names[:1] == ["services"] and len(names) > 1:
            return " ".join([f"[services.{names[1]}]", *names[2:]])
        return " ".join([f"[{names[0]}]", *names[1:]])

    def item(self, part: int | str) -> Place:
        return Place(source=self.source, path=(*self.path, part), option=self.option)


def place_of(file: Loaded, *path: str | int) -> Place:
    """A key of a file, for its errors."""
    return Place(source=file.source, path=path)


def option(name: str) -> Place:
    return Place(source=None, path=(), option=name)
