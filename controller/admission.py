"""PURE: how many requests may be under way at a device, how long each may take, and who is refused when that is full.

A device's *window* is what it answers in the time of the way and of a wait that is tolerable (Little's law). Its rate
comes from its own clock: what a request waited and computed there, by how many were there. Moments at the controller
would not do: when that is busy answers come late, a window by them would shrink, and shrink again. So a slow, hot or
busy device gets fewer requests, what waits is bounded in time and not in number, and an overload is refused instead of
queued. The controller, which may be the slowest of all, has a window of its own.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from controller.believed import Believed

# Answers after which the quantile, and the controller's rate, are looked at anew.
_STRETCH = 16
# And in which they came, for the controller's rate: answers come in bursts, which say nothing of it, in milliseconds.
_LONG_MS = 50.0
# Round trips that the quantile is taken of.
_REMEMBERED = 128
# Of one answer in the estimate of a device's rate.
_WEIGHT = 0.1
# With fewer requests at a device, what one waited for was something else.
_QUEUE = 3
# In a crowd a request waits for this share of the time that is tolerable else.
_CROWD_SHARE = 0.0625
# A crowd is remembered for so long at least, in seconds.
_LATELY_S = 1.0
# From this share of all room on, who holds more than others is refused, so that these still find some.
_CROWDED = 0.75


@dataclass(frozen=True)
class AdmissionLimits:
    wait_ms: float = 40.0
    """Time in a device's queue that is tolerable, for quick models; slow ones may wait for a few of their own runs."""
    wait_runs: float = 4.0
    first: int = 32
    """Requests under way at a device of which nothing is known."""
    least: int = 2
    most: int = 256
    """No more than an agent's queue holds."""
    house_first: int = 64
    """In the controller, before its rate is known."""
    house_least: int = 16
    """That the controller always takes."""
    late_factor: float = 3.0
    """An answer that takes this many times the 99th percentile is late."""
    late_least_ms: float = 100.0


class Pace:
    """How fast one device answers for one model."""

    def __init__(self, limits: AdmissionLimits) -> None:
        self._limits = limits
        self._took: deque[float] = deque(maxlen=_REMEMBERED)
        self._ways: deque[float] = deque(maxlen=_REMEMBERED)
        self._gap_ms = 0.0
        self._first_gap_ms = limits.wait_ms / limits.first
        self._counted = 0
        self.believed = Believed()
        self.held = 0
        """Requests under way there."""
        self.way_ms = 0.0
        """Both ways by the network, without queue and compute: the shortest of late, for the others waited somewhere
        on it, and what waits is not to make room for more."""
        self.p99_ms: float | None = None
        """Of the last round trips, queue and compute included; None before there are enough."""

    def sent(self) -> int:
        """One more; returns how many are there with it."""
        self.held += 1
        return self.held

    def answered(self, took_ms: float, queue_ms: float, service_ms: float, there: int) -> None:
        """One answer came, `took_ms` after its request left. On the device it waited `queue_ms` and was in the worker
        for `service_ms`; `there` is what `sent` returned."""
        gap = (queue_ms + service_ms) / there if there >= _QUEUE else service_ms
        self._gap_ms = gap if not self._took else self._gap_ms + _WEIGHT * (gap - self._gap_ms)
        way_ms = max(0.0, took_ms - queue_ms - service_ms)
        self.way_ms = way_ms if not self._took else min(self.way_ms, way_ms)
        self._took.append(took_ms)
        self._ways.append(way_ms)
        self._counted += 1
        self.gone()
        if self._counted >= _STRETCH:
            self._counted = 0
            self.way_ms = min(self._ways)
            self.p99_ms = sorted(self._took)[math.ceil(0.99 * len(self._took)) - 1]

    def gone(self) -> None:
        """A request is not under way there any more."""
        self.held -= 1

    def window(self, service_ms: float) -> int:
        """Requests that may be under way; `service_ms`: time of one in the device's worker, 0 if not known."""
        limits = self._limits
        gap = self._gap_ms or max(service_ms, self._first_gap_ms)
        wait = max(limits.wait_ms, limits.wait_runs * service_ms)
        return max(limits.least, min(limits.most, math.ceil((wait + self.way_ms) / gap)))

    def late_ms(self) -> float | None:
        """When an answer is late; None while too little is known to say."""
        if self.p99_ms is None:
            return None
        return max(self._limits.late_least_ms, self._limits.late_factor * self.p99_ms)

    def drain_ms(self) -> float:
        """Until what is held there now will be answered."""
        return self.held * (self._gap_ms or self._first_gap_ms)


class House:
    """The controller's own window: all requests that are in it, whatever device they are at. Its rate is that at which
    it answers while the window is half used or more; seen with less to do, a rate may raise it but not lower it."""

    def __init__(self, limits: AdmissionLimits, most: int) -> None:
        self._wait_ms = limits.wait_ms
        self._least, self._most = min(limits.house_least, most), most
        self._gap_ms = limits.wait_ms / min(limits.house_first, most)
        self._compute: deque[float] = deque(maxlen=_REMEMBERED)
        self._began = 0.0
        self._counted = 0
        self._busy_ms = 0.0
        self._used = False
        self.held = 0
        self.window = self._crowded = min(limits.house_first, most)

    @property
    def full(self) -> bool:
        return self.held >= self.window

    def room(self, callers: int) -> int:
        """Requests that may be in it while so many callers wait, now or of late. If all of them fit, each waits a
        little; if not, some are refused in any case, and those that are let in shall not wait for it too."""
        return self.window if callers <= self.window else self._crowded

    def enter(self, now: float) -> None:
        if not self.held:
            self._began = now
        self.held += 1
        self._used = self._used or 2 * self.held >= self.window

    def leave(self, now: float, compute_ms: float | None) -> None:
        """A request is over; it spent `compute_ms` in a device's worker, which is no queue. None: not answered."""
        self.held -= 1
        if compute_ms is None:
            return
        self._busy_ms += (now - self._began) * 1000
        self._began = now
        self._compute.append(compute_ms)
        self._counted += 1
        if self._counted >= _STRETCH and self._busy_ms >= _LONG_MS:
            self._look()

    def drain_ms(self) -> float:
        """Until what is in the house now will be answered."""
        return self.held * self._gap_ms

    def _look(self) -> None:
        gap = max(self._busy_ms / self._counted, 1e-3)
        if self._used or gap < self._gap_ms:
            self._gap_ms = 0.5 * (self._gap_ms + gap)
        self.window, self._crowded = self._fits(self._wait_ms), self._fits(_CROWD_SHARE * self._wait_ms)
        self._counted, self._busy_ms, self._used = 0, 0.0, 2 * self.held >= self.window

    def _fits(self, wait_ms: float) -> int:
        wanted = math.ceil((wait_ms + sum(self._compute) / len(self._compute)) / self._gap_ms)
        return max(self._least, min(self._most, wanted))


class Crowd:
    """The most callers who waited at once, for an answer or a refusal, within the last one to two seconds. Some of a
    crowd are always on their way to ask again; but connections that take turns are none, however many they are."""

    def __init__(self) -> None:
        self._ends = 0.0
        self._now = self._before = 0

    def size(self, waiting: int, now: float) -> int:
        """`waiting`: how many do at this moment."""
        if now >= self._ends:
            self._before = self._now if now < self._ends + _LATELY_S else 0
            self._now, self._ends = 0, now + _LATELY_S
        self._now = max(self._now, waiting)
        return max(self._now, self._before)


@dataclass(frozen=True)
class Room:
    """The situation when a request asks to come in."""

    room: int
    """Requests that may be under way at the devices looked at."""
    held: int
    """Of those, how many are."""
    mine: int
    """The caller's in the house, this one included."""
    all: int
    """Everybody's in the house."""
    callers: int
    """Who have any."""


def over_share(at: Room) -> bool:
    """Does the caller hold more than others on average, while room is short? He alone is then refused (429); with no
    room left everybody is (503). One caller alone may have all of it."""
    return at.callers > 1 and at.held >= _CROWDED * at.room and at.mine * at.callers > at.all


class Spare:
    """How many second tries for late answers are left: at most a share of all requests, so that a fleet that is slow
    as a whole does not get more to do."""

    def __init__(self, share: float = 0.05, most: float = 8.0) -> None:
        self._share = share
        self._most = most
        self._left = most

    def request(self) -> None:
        self._left = min(self._most, self._left + self._share)

    def take(self) -> bool:
        if self._left < 1:
            return False
        self._left -= 1
        return True
