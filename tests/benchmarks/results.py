"""Figures, and how they are shown: a table for people, one flat object of numbers for machines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Figure(NamedTuple):
    """One number under the key that it has in the JSON. `holds` is None where nothing is promised about it."""

    key: str
    value: float
    unit: str = ""
    promise: str = ""
    holds: bool | None = None
    note: str = ""
    always: bool = False
    """Promised of a quick run on a busy machine too."""


def at_most(key: str, value: float, limit: float, unit: str = "", note: str = "") -> Figure:
    """A figure that is promised not to exceed `limit`."""
    return Figure(key, value, unit, f"<= {limit:g}", value <= limit, note)


def table(figures: Iterable[Figure]) -> str:
    """Aligned lines: figure, value, promise, whether it holds, note."""
    rows = [("figure", "value", "promise", "", "")]
    for f in figures:
        verdict = "" if f.holds is None else ("holds" if f.holds else "BROKEN")
        rows.append((f.key, f"{f.value:,.4g} {f.unit}".rstrip(), f.promise, verdict, f.note))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[4]]).rstrip() for row in rows
    )


def flat(figures: Iterable[Figure]) -> dict[str, float]:
    return {figure.key: round(figure.value, 6) for figure in figures}


def broken(figures: Iterable[Figure], quick: bool) -> list[Figure]:
    """The promises that this run must keep and did not: all of a full run, only the firm ones of a quick run."""
    return [f for f in figures if f.holds is False and (f.always or not quick)]
