"""What is believed of a device's speed, and what that does to its share of requests."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.believed import Believed
from controller.routing import Candidate, Route, choose

NAMES = "abcd"


class Fleet:
    """Four devices, one of which takes `factor` times as long from `slow_at` to `well_at`; requests come one by one."""

    def __init__(self, factor: float, slow_at: float, well_at: float, rate: float) -> None:
        self.factor, self.slow_at, self.well_at, self.rate = factor, slow_at, well_at, rate
        self.believed = {name: Believed() for name in NAMES}
        self.draw = random.Random(0)

    def share(self, start: float, end: float) -> float:
        """Of the slowed device, of the requests from `start` to `end`; to be asked for in order."""
        chosen: Counter[str] = Counter()
        for number in range(round((end - start) * self.rate)):
            now = start + number / self.rate
            candidates = [
                Candidate(name, True, "x", 0, 0, self.believed[name].ms("x", now), 0.0, way_ms=1.0) for name in NAMES
            ]
            route = choose(candidates, frozenset(), self.draw.random())
            assert isinstance(route, Route)
            chosen[route.device] += 1
            slow = route.device == "a" and self.slow_at <= now < self.well_at
            self.believed[route.device].answered(10.0 * (self.factor if slow else 1.0), "x", now)
        return chosen["a"] / chosen.total()


@settings(max_examples=15, deadline=None)
@given(factor=st.floats(1.5, 20), slow_for=st.floats(10, 200), rate=st.sampled_from([2.0, 10.0, 50.0]))
def test_a_device_that_slows_down_loses_requests_within_ten_seconds_and_has_them_back_within_thirty(
    factor: float, slow_for: float, rate: float
) -> None:
    enough = 400 / rate  # Seconds in which so many come that a share means something.
    slow_at, well_at = enough, enough + slow_for
    fleet = Fleet(factor, slow_at, well_at, rate)
    assert 0.15 < fleet.share(0.0, slow_at) < 0.35
    if slow_for >= 10 + enough:
        fleet.share(slow_at, slow_at + 10)
        assert fleet.share(slow_at + 10, well_at) < 0.2
    else:
        fleet.share(slow_at, well_at)
    fleet.share(well_at, well_at + 30)
    assert fleet.share(well_at + 30, well_at + 30 + enough) > 0.15


@given(times=st.lists(st.tuples(st.floats(0.01, 1000), st.floats(0, 60)), min_size=1), later=st.floats(0, 100))
def test_what_is_believed_lies_within_what_was_measured(times: list[tuple[float, float]], later: float) -> None:
    believed, now = Believed(), 0.0
    for ms, after in times:
        now += after
        believed.answered(ms, "x", now)
    low, high = min(ms for ms, _ in times), max(ms for ms, _ in times)
    assert low * 0.999 <= believed.ms("x", now + later) <= believed.ms("x", now) + 1e-9 <= high * 1.001 + 1e-9


def test_another_artifact_begins_anew() -> None:
    believed = Believed()
    believed.answered(10.0, "x", 0.0)
    assert believed.ms("y", 0.0) == 0.0
    believed.answered(50.0, "y", 1.0)
    assert (believed.ms("x", 1.0), believed.ms("y", 1.0)) == (0.0, 50.0)
