"""Show a build as it goes: a live line for each layer on a terminal, plain lines elsewhere. To standard error.

Rule 1: what the builder prints comes from programs of the image: it is shown with its control characters escaped.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.markup import escape

from cloister.audit.table import printable
from cloister.images.progress import Output, Step

_LINE_CHARACTERS = 60
_PREPARING = "preparing"


class Display:
    """A context in which `hear` shows events. `titles`: a layer's name → what to call it."""

    def __init__(self, titles: Mapping[str, str]) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._titles = titles
        self._stage = ""
        self._since = time.monotonic()
        self._status = self._console.status(_PREPARING) if sys.stderr.isatty() else None

    def __enter__(self) -> Display:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            if kind is None:
                self._done()
            self._status.stop()

    def hear(self, event: Step | Output) -> None:
        """Show one event."""
        stage = event.stage if event.stage in self._titles else self._stage
        if stage != self._stage:
            self._done()
            self._stage, self._since = stage, time.monotonic()
            if self._status is None:
                self._console.out(f"{stage}: {self._titles[stage]}", highlight=False)
        if self._status is not None:
            text = event.text if isinstance(event, Output) else event.instruction
            name = self._titles.get(self._stage, _PREPARING)
            self._status.update(f"{escape(name)} [dim]{escape(printable(text)[:_LINE_CHARACTERS])}[/dim]")

    def _done(self) -> None:
        if self._stage and self._status is not None:
            seconds = time.monotonic() - self._since
            self._console.print(
                f"[green]✓[/green] {escape(self._titles[self._stage])} [dim]{seconds:.0f} s[/dim]"
            )
