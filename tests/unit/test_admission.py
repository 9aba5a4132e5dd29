"""How many requests may be under way, and who is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from controller.admission import AdmissionLimits, Crowd, House, Pace, Room, Spare, over_share

LIMITS = AdmissionLimits()


def keep_busy(pace: Pace, service_ms: float, answers: int, there: Sequence[int] = ()) -> list[int]:
    """A device that answers one request every `service_ms`, first come, first served, with as many as it may have.
    `there`: what is under way at the beginning; returns what is at the end."""
    there = list(there)
    for _ in range(answers):
        while pace.held < pace.window(service_ms):
            there.append(pace.sent())
        count = there.pop(0)
        waited = (count - 1) * service_ms
        pace.answered(waited + service_ms, waited, service_ms, count)
    return there


def kept_full(gap_s: float) -> House:
    """It answers one request every `gap_s`, and as many wait as it takes."""
    house, now = House(LIMITS, 1024), 0.0
    for _ in range(400):
        while not house.full:
            house.enter(now)
        now += gap_s
        house.leave(now, 0.5)
    return house


@given(service_ms=st.floats(0.2, 500))
def test_what_waits_at_a_busy_device_is_bounded_in_time(service_ms: float) -> None:
    pace = Pace(LIMITS)
    keep_busy(pace, service_ms, 200)
    allowed = max(LIMITS.wait_ms, LIMITS.wait_runs * service_ms)
    assert pace.window(service_ms) * service_ms <= max(1.2 * allowed, LIMITS.least * service_ms) + service_ms


@given(before_ms=st.floats(0.5, 5), slower=st.floats(3, 20))
def test_a_device_that_becomes_slower_gets_less(before_ms: float, slower: float) -> None:
    pace = Pace(LIMITS)
    there = keep_busy(pace, before_ms, 200)
    before = pace.window(before_ms)
    keep_busy(pace, before_ms * slower, 200, there)
    assert pace.window(before_ms) < before


@given(lag_ms=st.floats(0, 1000))
def test_a_controller_that_lags_does_not_make_a_device_look_slow(lag_ms: float) -> None:
    pace = Pace(LIMITS)
    for _ in range(200):
        counts = [pace.sent() for _ in range(8)]
        for count in counts:
            pace.answered(count * 1.0 + lag_ms, (count - 1) * 1.0, 1.0, count)
    assert pace.window(1.0) >= LIMITS.wait_ms


@given(st.lists(st.sampled_from(["send", "answer", "lose"]), max_size=200), st.floats(0, 100))
def test_a_window_stays_within_its_bounds_whatever_happens(events: list[str], service_ms: float) -> None:
    pace, held = Pace(LIMITS), 0
    for event in events:
        if event == "send":
            held += 1
            assert pace.sent() == held
        elif held:
            pace.gone() if event == "lose" else pace.answered(5.0, 3.0, 1.0, held)
            held -= 1
        assert pace.held == held
        assert LIMITS.least <= pace.window(service_ms) <= LIMITS.most


def test_the_house_takes_what_it_answers_in_time_and_always_a_few() -> None:
    assert House(LIMITS, 1024).window > 0
    house = kept_full(gap_s=0.001)
    assert 20 <= house.window <= 80
    burst, now = House(LIMITS, 1024), 0.0
    for _ in range(50):
        for _ in range(100):
            burst.enter(now)
        now += 0.1
        for _ in range(100):  # So many at once say 1,000 a second, and no more.
            burst.leave(now, 0.5)
    assert 20 <= burst.window <= 80
    slow = kept_full(gap_s=0.05)
    assert slow.window == LIMITS.house_least


def test_in_a_crowd_the_house_takes_fewer_so_that_those_wait_less() -> None:
    house = kept_full(gap_s=0.001)
    assert house.room(house.window) == house.window
    assert house.room(house.window + 1) == max(LIMITS.house_least, math.ceil(LIMITS.wait_ms / 16 + 0.5))


def test_a_crowd_is_the_most_who_waited_at_once_within_one_to_two_seconds() -> None:
    crowd = Crowd()
    assert [crowd.size(waiting, 10.0) for waiting in (0, 3, 50, 2)] == [0, 3, 50, 50]
    assert crowd.size(1, 11.1) == 50
    assert crowd.size(1, 12.2) == 1
    assert crowd.size(7, 12.3) == 7
    assert crowd.size(0, 20.0) == 0


def test_late_is_measured_by_what_answers_take() -> None:
    pace = Pace(LIMITS)
    assert pace.late_ms() is None
    for _ in range(64):
        pace.answered(100.0, 1.0, 1.0, pace.sent())
    assert pace.late_ms() == LIMITS.late_factor * 100.0


rooms = st.builds(
    lambda room, share, others: Room(room, round(room * share), others[0], sum(others), len(others)),
    st.integers(1, 200),
    st.floats(0, 1),
    st.lists(st.integers(1, 50), min_size=1, max_size=6),
)


@given(rooms)
def test_who_holds_no_more_than_others_is_never_refused_for_his_share(at: Room) -> None:
    if over_share(at):
        assert at.mine > at.all / at.callers
        assert at.held >= 0.75 * at.room


def test_one_caller_may_have_all_the_room_and_two_share_it() -> None:
    assert not over_share(Room(room=16, held=15, mine=16, all=16, callers=1))
    assert over_share(Room(room=16, held=15, mine=14, all=16, callers=2))
    assert not over_share(Room(room=16, held=15, mine=2, all=16, callers=2))
    assert not over_share(Room(room=16, held=4, mine=4, all=5, callers=2))


def test_second_tries_are_a_small_share_of_all_requests() -> None:
    spare, taken = Spare(), 0
    for _ in range(1000):
        spare.request()
        taken += spare.take()
    assert taken <= 60
    assert taken >= 40
