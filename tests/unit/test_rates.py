"""Token buckets: nobody gets more than his rate, the wait that is told is exact, memory stays bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.identity.rates import Rates

RATE = (2.0, 5)


def test_what_may_come_at_once_may_and_no_more() -> None:
    rates = Rates(10)
    assert [rates.take("ann", RATE, 0.0) for _ in range(7)] == [0.0] * 5 + [0.5, 0.5]


def test_after_exactly_the_told_wait_one_more_may_go_on_and_a_moment_before_it_may_not() -> None:
    rates = Rates(10)
    for _ in range(5):
        rates.take("ann", RATE, 0.0)
    wait = rates.take("ann", RATE, 0.25)
    assert wait == 0.25
    assert rates.wait("ann", RATE, 0.25 + wait - 1e-6) > 0
    assert rates.take("ann", RATE, 0.25 + wait) == 0.0
    assert rates.take("ann", RATE, 0.25 + wait) == 0.5


def test_one_does_not_use_up_what_another_has() -> None:
    rates = Rates(10)
    for _ in range(100):
        rates.take("greedy", RATE, 0.0)
    assert rates.take("ann", RATE, 0.0) == 0.0


def test_looking_does_not_count() -> None:
    rates = Rates(10)
    assert [rates.wait("ann", RATE, 0.0) for _ in range(100)] == [0.0] * 100
    assert len(rates) == 0


def test_who_asked_longest_ago_is_forgotten_first() -> None:
    rates = Rates(2)
    for _ in range(5):
        rates.take("old", RATE, 0.0)
        rates.take("ann", RATE, 0.0)
    rates.take("new", RATE, 0.0)
    assert len(rates) == 2
    assert rates.wait("ann", RATE, 0.0) == 0.5
    assert rates.wait("old", RATE, 0.0) == 0.0


@given(
    st.floats(0.1, 1000),
    st.integers(1, 100),
    st.lists(st.tuples(st.floats(0, 5), st.sampled_from("abcdefgh")), max_size=200),
)
def test_over_any_time_no_more_go_on_than_rate_and_burst_allow(
    per_s: float, most: int, steps: list[tuple[float, str]]
) -> None:
    rates, now, passed = Rates(8), 0.0, dict.fromkeys("abcdefgh", 0)
    for pause, who in steps:
        now += pause
        passed[who] += rates.take(who, (per_s, most), now) == 0.0
    assert max(passed.values()) <= most + now * per_s + 1e-6
    assert len(rates) <= 8
