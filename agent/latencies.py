"""How long recent requests took, and what that was like inside a stretch of time."""

from __future__ import annotations

from array import array

from agent.contract.messages import Window


class Latencies:
    """The last `most` answers: when, how many milliseconds from receipt, and whether they failed."""

    def __init__(self, most: int = 8192) -> None:
        self._most = most
        self._when = array("d")
        self._took = array("f")
        self._failed = array("b")
        self._next = 0

    def add(self, now: float, took_ms: float, failed: bool) -> None:
        if len(self._when) < self._most:
            self._when.append(now)
            self._took.append(took_ms)
            self._failed.append(failed)
        else:
            self._when[self._next] = now
            self._took[self._next] = took_ms
            self._failed[self._next] = failed
        self._next = (self._next + 1) % self._most

    def p95(self, since: float) -> float | None:
        """Of the requests answered at `since` or later, as far back as is remembered; None if there were none."""
        took: list[float] = []
        for back in range(1, len(self._when) + 1):
            place = self._next - back
            if self._when[place] < since:
                break
            took.append(self._took[place])
        return _quantile(sorted(took), 0.95)

    def window(self, start: float, end: float) -> Window:
        """Requests answered in [start, end), as far back as is remembered."""
        inside = [i for i, when in enumerate(self._when) if start <= when < end]
        took = sorted(self._took[i] for i in inside)
        failed = sum(self._failed[i] for i in inside)
        return Window(requests=len(took), failed=failed, p50_ms=_quantile(took, 0.5), p99_ms=_quantile(took, 0.99))


def _quantile(ordered: list[float], share: float) -> float | None:
    """Nearest-rank quantile."""
    if not ordered:
        return None
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 4)
