"""Which requests ran during a swap, which belong to a quiet stretch of the same run, and how long they took. Pure.

"During" is from the fork of the candidate to the exit of the old worker, on any device; each such stretch has control
windows of its own length before and after the whole. Times are seconds since 1970, latencies milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from controller.replies import TimedSwap


@dataclass(frozen=True)
class Sample:
    """One request. `at`: when it was due; `error` empty: answered."""

    at: float
    ms: float
    version: int = 0
    device: str = ""
    error: str = ""


@dataclass(frozen=True)
class Span:
    start: float
    end: float

    def holds(self, at: float) -> bool:
        return self.start <= at < self.end


def during(swaps: Iterable[TimedSwap]) -> list[Span]:
    """The stretch of each swap: its record comes when the old worker is gone, and says how long that took."""
    return [Span(swap.at - max(0.0, swap.total_s - swap.fetch_s), swap.at) for swap in swaps]


def hull(spans: Sequence[Span]) -> Span:
    """From the first start to the last end; `spans` must not be empty."""
    return Span(min(span.start for span in spans), max(span.end for span in spans))


def controls(swaps: Sequence[Span], stream: Span, most: int = 3, gap_s: float = 0.1) -> list[Span]:
    """`swaps` moved as a whole, up to `most` times before and `most` times after, as far as `stream` reaches."""
    whole = hull(swaps)
    step = whole.end - whole.start + gap_s
    shifts = [factor * step for factor in range(-most, most + 1) if factor]
    moved = [Span(span.start + shift, span.end + shift) for shift in shifts for span in swaps]
    return sorted((s for s in moved if s.start >= stream.start and s.end <= stream.end), key=lambda s: s.start)


def latencies(samples: Iterable[Sample], spans: Sequence[Span]) -> list[float]:
    """Latencies of the answered requests that were due inside any of `spans`, ascending."""
    return sorted(s.ms for s in samples if not s.error and any(span.holds(s.at) for span in spans))


def percentile(ascending: Sequence[float], share: float) -> float | None:
    """Nearest rank: the smallest value that `share` of all do not exceed; None without values."""
    if not ascending:
        return None
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]


def ideal_s(rows: int, all_per_s: float, left_per_s: float, killed_at_s: float | None) -> float:
    """How long bare processes need for `rows` at `all_per_s`, and at `left_per_s` after the moment of the kill."""
    if killed_at_s is None or all_per_s * killed_at_s >= rows:
        return rows / all_per_s
    return killed_at_s + (rows - all_per_s * killed_at_s) / left_per_s
