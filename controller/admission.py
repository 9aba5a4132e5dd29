"""PURE: how many requests may be under way at a device, how long each may take, and who is refused when that is full.

A device's *window* is what it answers in the time of the way and of a wait that is tolerable (Little's law), by the
rate at which it was seen to answer. As in BBR, a rate counts as the device's own only if requests were waiting there;
seen with less to do, it may raise the estimate but not lower it. So a slow, hot or busy device gets fewer requests,
what waits is bounded in time and not in number, and an overload is refused instead of queued. The controller itself,
which may be the slowest of all, has a window by the same rule.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace

# Answers after which rate and quantile are looked at anew.
_STRETCH = 16
# Round trips that the quantile is taken of.
_REMEMBERED = 128
# The controller's window counts as used when this share of it is.
_USED = 0.5
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
    """How fast one device answers for one model. Moments are monotonic seconds."""

    def __init__(self, limits: AdmissionLimits) -> None:
        self._limits = limits
        self._took: deque[float] = deque(maxlen=_REMEMBERED)
        self._ways: deque[float] = deque(maxlen=_REMEMBERED)
        self._gap_ms = 0.0
        self._counted = 0
        self._busy_ms = 0.0
        self._waited = 0
        self._since = 0.0
        self._service_ms = 0.0
        self.held = 0
        """Requests under way there."""
        self.way_ms = 0.0
        """Both ways by the network, without queue and compute: the shortest of late, for the others waited somewhere
        on it, and what waits is not to make room for more."""
        self.p99_ms: float | None = None
        """Of the last round trips, queue and compute included; None before there are enough."""

    def sent(self, now: float) -> None:
        if not self.held:
            self._since = now
        self.held += 1

    def answered(self, now: float, took_ms: float, way_ms: float, *, waited: bool) -> None:
        """One answer came, `took_ms` after its request left; of that, `way_ms` were neither queue nor compute.
        `waited`: others were before it, so that the device was what held it up."""
        self.way_ms = way_ms if not self._took else min(self.way_ms, way_ms)
        self._ways.append(way_ms)
        self._took.append(took_ms)
        self._busy_ms += (now - self._since) * 1000
        self._since = now
        self._counted += 1
        self._waited += waited
        self.gone()
        if self._counted >= _STRETCH:
            self._look()

    def gone(self) -> None:
        """A request is not under way there any more."""
        self.held -= 1

    def overfull(self) -> None:
        """The device itself refused for want of room: half of what there was is what it can take."""
        self._gap_ms = 2 * max(self._gap_ms, self._first_gap(self._service_ms))

    def window(self, service_ms: float) -> int:
        """Requests that may be under way; `service_ms`: time of one in the device's worker as last measured, 0 if not
        known."""
        limits = self._limits
        self._service_ms = service_ms
        gap = self._gap_ms or self._first_gap(service_ms)
        wait = max(limits.wait_ms, limits.wait_runs * service_ms)
        return max(limits.least, min(limits.most, math.ceil((wait + self.way_ms) / gap)))

    def late_ms(self) -> float | None:
        """When an answer is late; None while too little is known to say."""
        if self.p99_ms is None:
            return None
        return max(self._limits.late_least_ms, self._limits.late_factor * self.p99_ms)

    def drain_ms(self, service_ms: float) -> float:
        """Until what is held there now will be answered."""
        return self.held * (self._gap_ms or self._first_gap(service_ms))

    def _first_gap(self, service_ms: float) -> float:
        return max(service_ms, self._limits.wait_ms / self._limits.first)

    def _look(self) -> None:
        gap = max(self._busy_ms / self._counted, 1e-3)
        if 2 * self._waited > self._counted or (self._gap_ms and gap < self._gap_ms):
            self._gap_ms = gap if not self._gap_ms else 0.5 * (self._gap_ms + gap)
        self.way_ms = min(self._ways)
        ordered = sorted(self._took)
        self.p99_ms = ordered[math.ceil(0.99 * len(ordered)) - 1]
        self._counted, self._busy_ms, self._waited = 0, 0.0, 0


class House:
    """The controller's own window: all requests that are in it, whatever device they are at."""

    def __init__(self, limits: AdmissionLimits, most: int) -> None:
        first, least = min(limits.house_first, most), min(limits.house_least, most)
        self._pace = Pace(replace(limits, first=first, least=least, most=most))

    @property
    def held(self) -> int:
        return self._pace.held

    @property
    def window(self) -> int:
        return self._pace.window(0.0)

    @property
    def full(self) -> bool:
        return self._pace.held >= self.window

    def enter(self, now: float) -> None:
        self._pace.sent(now)

    def leave(self, now: float, took_ms: float | None, compute_ms: float) -> None:
        """A request is over; `took_ms` is None if it was not answered. What its model itself computes is no queue."""
        if took_ms is None:
            self._pace.gone()
        else:
            self._pace.answered(now, took_ms, compute_ms, waited=self._pace.held >= _USED * self.window)

    def drain_ms(self) -> float:
        return self._pace.drain_ms(0.0)


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
