"""PURE: token buckets. Who asks more often than his rate allows is told how long to wait."""

from __future__ import annotations

from collections import OrderedDict

Rate = tuple[float, int]
"""Per second, and how many may come at once."""


class Rates:
    """`now` is in monotonic seconds. At most `kept` callers are remembered: who asked longest ago is forgotten first,
    and begins again with a full bucket."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, who: str, rate: Rate, now: float) -> float:
        """Count one request; 0 if it may go on, else the seconds after which the next one may."""
        per_s, most = rate
        left, at = self._buckets.get(who, (most, now))
        left = min(most, left + (now - at) * per_s)
        wait = 0.0 if left >= 1 else (1 - left) / per_s
        self._buckets[who] = (left if wait else left - 1, now)
        self._buckets.move_to_end(who)
        if len(self._buckets) > self._kept:
            self._buckets.popitem(last=False)
        return wait

    def wait(self, who: str, rate: Rate, now: float) -> float:
        """What `take` would answer, without counting."""
        per_s, most = rate
        left, at = self._buckets.get(who, (most, now))
        left = min(most, left + (now - at) * per_s)
        return 0.0 if left >= 1 else (1 - left) / per_s
