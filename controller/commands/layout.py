"""Text for people: aligned columns, sizes, shares, times. Pure."""

from __future__ import annotations

from collections.abc import Sequence

GAP = "  "


def aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Rows as lines with aligned columns; the columns numbered in `right` are flush right."""
    widths = [
        max((len(row[i]) for row in rows if i < len(row)), default=0) for i in range(max(map(len, rows), default=0))
    ]
    return [GAP.join(_padded(cell, widths[i], i in right) for i, cell in enumerate(row)).rstrip() for row in rows]


def size(count: float | None) -> str:
    """Bytes as B, kB or MB (powers of ten)."""
    if count is None:
        return "-"
    if count < 1000:
        return f"{count:.0f} B"
    return f"{count / 1e3:.1f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB"


def share(value: float | None) -> str:
    """A share of 1 as a percentage."""
    return "-" if value is None else f"{value * 100:.2f} %"


def ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} ms"


def seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


def ago(value: float | None) -> str:
    if value is None:
        return "never"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if value >= 2 * length:
            return f"{value / length:.0f} {unit} ago"
    return f"{value:.0f} s ago"


def count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _padded(cell: str, width: int, right: bool) -> str:
    return cell.rjust(width) if right else cell.ljust(width)
