"""How a job's shares follow what its devices can do, and how a device leaves: small simulated fleets, no clock."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.shards import split
from controller.work import Action, Answered, DeviceClosed, DeviceGone, DeviceReady, Job, Lease, Policy, Ticked

TICK_S = 0.2
WINDOW_S = 3.0


@dataclass
class Device:
    """Computes one shard after the other at `rows_s` rows a second; from `slow_at` to `well_at` at a part of that."""

    rows_s: float
    part: float = 1.0
    slow_at: float = 0.0
    well_at: float = 0.0
    free_at: float = 0.0
    done: list[tuple[float, float, int]] = field(default_factory=list)
    """From when to when each shard was computed, and its rows."""

    def compute(self, now: float, rows: int) -> tuple[float, float]:
        """When it began and ended."""
        began = at = max(now, self.free_at)
        left = rows / self.rows_s
        for until, speed in ((self.slow_at, 1.0), (self.well_at, self.part)):
            if at < until:
                taken = min(left, (until - at) * speed)
                at, left = at + taken / speed, left - taken
        self.free_at = at + left
        self.done.append((began, self.free_at, rows))
        return began, self.free_at

    def rows_in(self, start: float, end: float) -> float:
        """Of a shard that was begun before or ended after, the part that lies within."""
        return sum(
            rows * max(0.0, min(end, ended) - max(start, began)) / (ended - began) for began, ended, rows in self.done
        )


class Fleet:
    """Drives a job turn by turn."""

    def __init__(self, job: Job, devices: dict[str, Device]) -> None:
        self.job, self.devices, self.now = job, devices, 0.0
        self.leases: list[Lease] = []
        self._answers: list[tuple[float, int, Answered]] = []
        for name in devices:
            job.handle(DeviceReady(name, 0.001), 0.0)

    def run(self, until: float) -> None:
        while self.now < until and not self.job.finished:
            while self._answers and self._answers[0][0] <= self.now:
                self.job.handle(heapq.heappop(self._answers)[2], self.now)
            self.job.handle(Ticked(), self.now)
            self._take(self.job.assign(self.now))
            self.now += TICK_S

    def share(self, name: str, end: float) -> float:
        """Of the rows computed in the seconds before `end`."""
        rows = {each: device.rows_in(end - WINDOW_S, end) for each, device in self.devices.items()}
        return rows[name] / sum(rows.values())

    def _take(self, actions: list[Action]) -> None:
        for lease in (action for action in actions if isinstance(action, Lease)):
            self.leases.append(lease)
            began, ended = self.devices[lease.device].compute(self.now, lease.shard.rows)
            answer = Answered(lease.device, lease.shard.number, lease.attempt, ended - began)
            heapq.heappush(self._answers, (ended, len(self.leases), answer))


@settings(max_examples=25, deadline=None)
@given(part=st.floats(0.1, 0.6), shard_s=st.floats(0.1, 0.6), slow_for=st.floats(10, 20))
def test_a_device_that_slows_down_loses_share_within_ten_seconds_and_has_it_back_within_thirty(
    part: float, shard_s: float, slow_for: float
) -> None:
    well_at = 10 + slow_for
    devices = {name: Device(200.0) for name in "bcd"} | {"a": Device(200.0, part, 10.0, well_at)}
    fleet = Fleet(Job(split(200_000, max(1, round(200 * shard_s))), Policy()), devices)
    fleet.run(well_at + 31)
    assert 0.2 < fleet.share("a", 10.0) < 0.3
    assert fleet.share("a", 20.0) < (part + 0.2) / (part + 3) + 0.03
    assert fleet.share("a", well_at + 30) > 0.2
    assert (
        sum(device.rows_in(20.0 - WINDOW_S, 20.0) for device in devices.values()) > 0.85 * 200 * (3 + part) * WINDOW_S
    )


@settings(max_examples=25, deadline=None)
@given(at=st.floats(0.3, 3), rows=st.integers(200, 2000), size=st.integers(5, 100))
def test_a_closed_device_gets_nothing_more_and_what_it_holds_counts(at: float, rows: int, size: int) -> None:
    fleet = Fleet(Job(split(rows, size), Policy()), {name: Device(200.0) for name in "ab"})
    fleet.run(at)
    before = len(fleet.leases)
    fleet.job.handle(DeviceClosed("a"), fleet.now)
    fleet.run(3600)
    assert fleet.job.finished
    assert fleet.job.accepted == len(split(rows, size))
    assert "a" not in {lease.device for lease in fleet.leases[before:]}
    assert fleet.job.counters.moved == 0


@settings(max_examples=25, deadline=None)
@given(at=st.floats(0.3, 3), back=st.floats(0.1, 3), rows=st.integers(200, 2000), size=st.integers(5, 100))
def test_what_a_drained_device_holds_is_computed_elsewhere_at_once_and_counts_once(
    at: float, back: float, rows: int, size: int
) -> None:
    fleet = Fleet(Job(split(rows, size), Policy()), {name: Device(200.0) for name in "ab"})
    fleet.run(at)
    fleet.job.handle(DeviceClosed("a"), fleet.now)
    fleet.job.handle(DeviceGone("a"), fleet.now)
    assert fleet.job.devices["a"].outstanding == fleet.job.devices["a"].waiting_rows == 0
    before = len(fleet.leases)
    fleet.run(fleet.now + back)
    assert "a" not in {lease.device for lease in fleet.leases[before:]}
    fleet.job.handle(DeviceReady("a", 0.001), fleet.now)
    fleet.run(3600)
    assert fleet.job.finished
    assert fleet.job.accepted == len(split(rows, size))
    assert not fleet.job.quarantined
