"""Plots as inline SVG: text in, text out. Colours come from the page's style sheet by class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from itertools import pairwise
from typing import Literal, NamedTuple

from optimizer.scales import Anchor, Box, Scale, around, around_log, front, log_ticks, place, shorten, ticks, width

Format = Callable[[float], str]
Kind = Literal["row", "failed", "passed", "chosen"]

TEXT = 11.5
_WIDE, _HIGH = 616.0, 350.0
_INSIDE = Box(84, 14, 586, 304)
_BARS, _ROW = 380.0, 40.0
_RADIUS: dict[Kind, float] = {"row": 5.5, "failed": 4.0, "passed": 4.5, "chosen": 7.0}


class Point(NamedTuple):
    """A model in the plot: its size in bytes, how good it is, what it is."""

    size: float
    worth: float
    kind: Kind
    text: str
    """Beside the mark, where there is room."""
    told: str
    """All of it, for the mark's title."""


class Bar(NamedTuple):
    """A bar; `inner` is a part of it, drawn in it."""

    text: str
    value: float
    told: str
    kind: Literal["ours", "other"] = "other"
    inner: float | None = None


def scatter(
    title: str, told: str, points: Sequence[Point], axes: tuple[str, str], formats: tuple[Format, Format]
) -> str:
    """Worth over size (logarithmic), with the front of what none of the others beats. "" without points."""
    points = [point for point in points if point.size > 0]
    if not points:
        return ""
    x = Scale(*around_log([point.size for point in points]), _INSIDE.left, _INSIDE.right, log=True)
    y = Scale(*around([point.worth for point in points], 0.01), _INSIDE.bottom, _INSIDE.top)
    best = _best(points, x, y)
    drawn = [*_axes(x, y, axes, formats), _front(best), *_marks(points, x, y, list(_along(best)))]
    return _svg("scatter", title, told, _WIDE, _HIGH, drawn)


def bars(title: str, told: str, rows: Sequence[Bar]) -> str:
    """Horizontal bars from zero, each under its name and figure. "" without rows."""
    if not rows:
        return ""
    longest = max(row.value for row in rows) or 1.0
    drawn = [part for at, row in enumerate(rows) for part in _bar(row, at * _ROW, longest)]
    return _svg("bars", title, told, _BARS, len(rows) * _ROW, drawn)


def _bar(row: Bar, top: float, longest: float) -> Iterator[str]:
    name = shorten(row.text, TEXT, _BARS - width(row.told, TEXT) - TEXT)
    yield _text(0, top + 14, name, "name")
    yield _text(_BARS, top + 14, row.told, "figure end")
    shade = "whole" if row.inner is None else "outer"
    yield _rect(_BARS * row.value / longest, top, f"{shade} {row.kind}", f"{row.text}: {row.told}")
    if row.inner is not None:
        yield _rect(_BARS * min(row.inner, row.value) / longest, top, f"inner {row.kind}", "")


def _rect(length: float, top: float, kind: str, told: str) -> str:
    place = f'x="0" y="{top + 20:.1f}" width="{max(length, 1.5):.1f}" height="11" rx="2"'
    return f'<rect class="{kind}" {place}><title>{escape(told)}</title></rect>'


def _axes(x: Scale, y: Scale, names: tuple[str, str], formats: tuple[Format, Format]) -> Iterator[str]:
    for value in log_ticks(x.low, x.high, 6):
        at = x.at(value)
        yield _line(at, _INSIDE.top, at, _INSIDE.bottom)
        yield _text(at, _INSIDE.bottom + 17, formats[0](value), "tick middle")
    for value in ticks(y.low, y.high, 6):
        at = y.at(value)
        yield _line(_INSIDE.left, at, _INSIDE.right, at)
        yield _text(_INSIDE.left - 8, at + 4, formats[1](value), "tick end")
    yield _text((_INSIDE.left + _INSIDE.right) / 2, _HIGH - 8, names[0], "axis middle")
    middle = (_INSIDE.top + _INSIDE.bottom) / 2
    turned = f'transform="rotate(-90 12 {middle:.1f})"'
    yield _text(12, middle, names[1], "axis middle", turned)


def _best(points: Sequence[Point], x: Scale, y: Scale) -> list[tuple[float, float]]:
    """Places on the front. Candidates that failed do not count: they may not be released."""
    best = front((point.size, point.worth) for point in points if point.kind != "failed")
    return [(x.at(size), y.at(worth)) for size, worth in best]


def _front(best: Sequence[tuple[float, float]]) -> str:
    if len(best) < 2:
        return ""
    corners = [f"M{best[0][0]:.1f} {best[0][1]:.1f}", *(f"H{across:.1f}V{up:.1f}" for across, up in best[1:])]
    return f'<path class="front" d="{"".join(corners)}"/>'


def _along(best: Sequence[tuple[float, float]]) -> Iterator[Box]:
    """What the drawn front covers."""
    for (x1, y1), (x2, y2) in pairwise(best):
        yield Box(x1, y1 - 1, x2, y1 + 1)
        yield Box(x2 - 1, min(y1, y2), x2 + 1, max(y1, y2))


def _marks(points: Sequence[Point], x: Scale, y: Scale, taken: Sequence[Box]) -> Iterator[str]:
    """What matters most is drawn last, and chooses first where its name stands."""
    order: tuple[Kind, ...] = ("chosen", "row", "passed", "failed")
    ranked = sorted(points, key=lambda point: order.index(point.kind))
    anchors = [Anchor(x.at(p.size), y.at(p.worth), _RADIUS[p.kind], p.text) for p in ranked]
    boxes = place(anchors, TEXT, _INSIDE, taken)
    for point, anchor in reversed(list(zip(ranked, anchors, strict=True))):
        yield f'<g class="{point.kind}">{_shape(point.kind, anchor)}<title>{escape(point.told)}</title></g>'
    for point, box in zip(ranked, boxes, strict=True):
        if box is not None:
            yield _text(box.left, box.bottom - TEXT * 0.3, point.text, f"label {point.kind}")


def _shape(kind: Kind, at: Anchor) -> str:
    x, y, radius, _ = at
    if kind == "row":
        return f'<path d="M{x - radius:.1f} {y:.1f}l{radius} {radius}l{radius} -{radius}l-{radius} -{radius}z"/>'
    if kind == "failed":
        start, across = f"M{x - radius:.1f} {y - radius:.1f}", 2 * radius
        return f'<path d="{start}l{across} {across}m0 -{across}l-{across} {across}"/>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>'


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="grid" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str, more: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" {more}>{escape(text)}</text>'


def _svg(kind: str, title: str, told: str, wide: float, high: float, drawn: Sequence[str]) -> str:
    identity = f"{kind}-{''.join(letter if letter.isalnum() else '-' for letter in title.lower())}"
    head = f'<title id="{identity}">{escape(title)}</title><desc id="{identity}-desc">{escape(told)}</desc>'
    about = f'role="img" aria-labelledby="{identity} {identity}-desc"'
    return f'<svg class="{kind}" viewBox="0 0 {wide:g} {high:g}" {about}>{head}{"".join(drawn)}</svg>'
