"""Scales, ticks, and places for labels of plots. Pure; lengths are in units of the view box."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_LOG_STEPS = ((1, 2, 5), (1, 3), (1,))
_GAP = 4.0


class Scale(NamedTuple):
    """Maps values from `low` to `high` onto positions from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        low, high, value = (math.log(x) for x in (self.low, self.high, value)) if self.log else (*self[:2], value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)


class Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.bottom <= other.top or other.bottom <= self.top)

    def within(self, other: Box) -> bool:
        across = other.left <= self.left and self.right <= other.right
        return across and other.top <= self.top and self.bottom <= other.bottom


class Anchor(NamedTuple):
    """A point, the radius of its mark, and what is to stand beside it."""

    x: float
    y: float
    radius: float
    text: str


def around(values: Sequence[float], least: float, share: float = 0.08) -> tuple[float, float]:
    """Bounds of a linear scale that leave room around `values`; they span at least `least`."""
    low, high = min(values), max(values)
    missing = max(0.0, least - (high - low)) / 2
    room = max(high - low, least) * share
    return low - missing - room, high + missing + room


def around_log(values: Sequence[float], least: float = 3.0, share: float = 0.08) -> tuple[float, float]:
    """Bounds of a logarithmic scale around positive `values`; the higher is at least `least` times the lower."""
    low, high = around([math.log(value) for value in values], math.log(least), share)
    return math.exp(low), math.exp(high)


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round values from `low` to `high`, evenly spaced, at most `most` of them (which is 2 or more)."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (power * factor for factor in (*_STEPS, 20.0, 50.0, 100.0)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            return [number * step for number in range(first, last + 1)]
    return []


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Round values from `low` to `high`: 1, 2, 5 in every power of ten, or fewer, at most `most`."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for stride in range(1, len(powers) + 1):
        for digits in _LOG_STEPS:
            if stride > 1 and len(digits) > 1:
                continue
            found = [digit * 10.0**power for power in powers[::stride] for digit in digits]
            found = [value for value in found if low <= value <= high]
            if len(found) <= most:
                return found
    return []


def width(text: str, size: float) -> float:
    """No less than what a proportional font of that size takes, as far as it can be known without the font."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return size * (0.6 * (len(text) - wide) + wide)


def shorten(text: str, size: float, room: float) -> str:
    """The text, or as much of its start as fits into `room`."""
    if width(text, size) <= room:
        return text
    while text and width(f"{text}…", size) > room:
        text = text[:-1]
    return f"{text.rstrip()}…"


def front(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (cost, worth) that no other beats in both, by rising cost."""
    best: list[tuple[float, float]] = []
    for cost, worth in sorted(set(points), key=lambda point: (point[0], -point[1])):
        if not best or worth > best[-1][1]:
            best.append((cost, worth))
    return best


def place(anchors: Sequence[Anchor], size: float, bounds: Box, taken: Sequence[Box] = ()) -> list[Box | None]:
    """A box for the text of each anchor: inside `bounds`, over no mark and no other text; None where there is no room.

    Earlier anchors choose first.
    """
    busy = [*taken, *(_mark(anchor) for anchor in anchors)]
    boxes: list[Box | None] = []
    for anchor in anchors:
        found = next((box for box in _beside(anchor, size) if _free(box, bounds, busy)), None) if anchor.text else None
        boxes.append(found)
        if found is not None:
            busy.append(found)
    return boxes


def _free(box: Box, bounds: Box, busy: Sequence[Box]) -> bool:
    return box.within(bounds) and not any(box.meets(other) for other in busy)


def _mark(anchor: Anchor) -> Box:
    x, y, radius = anchor[:3]
    return Box(x - radius, y - radius, x + radius, y + radius)


def _beside(anchor: Anchor, size: float) -> Iterator[Box]:
    """Where a text may stand, the best place first."""
    x, y, radius, text = anchor
    across, high = width(text, size), size * 1.2
    for far in (radius + _GAP + rows * high for rows in range(3)):
        for left in (x + far, x - far - across):
            yield Box(left, y - high / 2, left + across, y + high / 2)
        for top in (y - far - high, y + far):
            for left in (x - across / 2, x, x - across):
                yield Box(left, top, left + across, top + high)
