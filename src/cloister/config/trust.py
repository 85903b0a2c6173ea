"""Trust: a project's cloister.toml counts only after the user has adopted exactly these bytes.

Rule 1: the agent may write the project's file, so the adopted copy lies outside the project, and decides.
Rule 2: any difference is refused, a missing file too: deleting a file of bans must not widen anything.
Rule 3: a difference is shown with every control and invisible character escaped (Trojan Source, terminals).
"""

from __future__ import annotations

import difflib

from cloister.config.directories import Project
from cloister.config.files import read_configuration, read_own_configuration
from cloister.config.wording import visible
from cloister.errors import UntrustedConfigurationError
from cloister.system import files

SHOWN_LINES_LIMIT = 400


def texts(project: Project) -> tuple[str | None, str | None]:
    """The project's file and its adopted copy; None for one that does not exist."""
    return read_configuration(project.file), read_own_configuration(project.adopted)


def check(project: Project, current: str | None, adopted: str | None) -> None:
    """UntrustedConfigurationError, with the difference, unless the two are the same bytes."""
    if current == adopted:
        return
    if current is None:
        brief = f"{visible(project.file)} has been removed since you adopted it"
    elif adopted is None:
        brief = f"{visible(project.file)} has not been adopted yet, so nothing of it counts"
    else:
        brief = f"{visible(project.file)} has changed since you adopted it"
    raise UntrustedConfigurationError(
        brief,
        details=difference(adopted, current, limit=SHOWN_LINES_LIMIT),
        resolution="read the difference; if you want it: cloister trust",
    )


def difference(old: str | None, new: str | None, *, limit: int | None = None) -> str:
    """A unified difference, safe for a terminal. Whoever adopts it sees all of it: `limit` is for errors."""
    lines = difflib.unified_diff(_lines(old), _lines(new), "adopted", "cloister.toml", lineterm="", n=3)
    shown = [visible(line) for line in lines]
    if limit is not None and len(shown) > limit:
        shown = [*shown[:limit], f"… {len(shown) - limit} more lines"]
    return "\n".join(shown) or "(no line differs: an empty file, or only the newline at the end)"


def adopt(project: Project, text: str) -> None:
    """Make `text` the adopted copy."""
    files.make_private_directory(project.state)
    files.write_atomic(project.adopted, text.encode("utf-8"))


def forget(project: Project) -> None:
    """Remove the adopted copy: the project then has no configuration of its own."""
    files.remove(project.adopted)


def _lines(text: str | None) -> list[str]:
    """Split at newlines alone: `str.splitlines` also splits at characters that must be seen."""
    return text.removesuffix("\n").split("\n") if text else []
