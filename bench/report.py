"""The table of a benchmark run: what was measured, the reference, the bar, and whether it is met."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line. `met` is None where there is no bar, or nothing could be measured."""

    what: str
    measured: str
    reference: str = ""
    ratio: str = ""
    bar: str = ""
    met: bool | None = None


def at_most(what: str, measured: float, reference: float, bar: float, *, unit: str, against: str) -> Row:
    """A ratio that should be at most `bar`."""
    return _ratio(
        what, measured, reference, f"≤ {bar:.3g} ×", measured <= bar * reference, unit=unit, against=against
    )


def at_least(what: str, measured: float, reference: float, bar: float, *, unit: str, against: str) -> Row:
    """A ratio that should be at least `bar`."""
    return _ratio(
        what, measured, reference, f"≥ {bar:.3g} ×", measured >= bar * reference, unit=unit, against=against
    )


def _ratio(
    what: str, measured: float, reference: float, bar: str, met: bool, *, unit: str, against: str
) -> Row:
    return Row(
        what=what,
        measured=f"{measured:.4g} {unit}",
        reference=f"{against} {reference:.4g} {unit}",
        ratio=f"{measured / reference:.3g} ×",
        bar=bar,
        met=met,
    )


def not_measured(what: str, reason: str) -> Row:
    return Row(what=what, measured=f"not measured: {reason}")


def show(rows: list[Row]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("what", "measured", "reference", "ratio", "bar", "verdict"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        verdict = {None: "", True: "[green]met[/]", False: "[red]missed[/]"}[row.met]
        table.add_row(row.what, row.measured, row.reference, row.ratio, row.bar, verdict)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=150)
    console.print(table)
