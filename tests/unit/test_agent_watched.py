"""Guarantees of the watch: a broken version is sent back by its answers, and chance alone sends nobody back."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import watched
from agent.contract.manifest import Watch
from agent.settings import Limits
from agent.watched import Seen, Tally

ASKED = watched.terms(Watch(answers=1000), Limits())


def tally(seen: Iterable[Seen]) -> Tally:
    found = Tally()
    for one in seen:
        found.take(one)
    return found


def verdicts(before: Tally, seen: Iterable[Seen], asked: watched.Terms = ASKED) -> str:
    """The first reason to send the version back, looking after every answer."""
    now = Tally()
    for one in seen:
        now.take(one)
        if reason := watched.judge(asked, before, now):
            return reason
    return watched.judge(asked, before, now, last=True)


def answers(count: int, seed: int, weights: tuple[float, ...] = (1, 1, 1, 1), ms: float = 1.0) -> list[Seen]:
    """Honest answers: classes drawn by weight, times with a long tail."""
    draw = random.Random(seed)
    return [
        Seen(row_ms=ms * draw.lognormvariate(0, 0.3), classes=(draw.choices(range(len(weights)), weights)[0],))
        for _ in range(count)
    ]


def test_a_manifest_says_its_own_terms_and_the_agent_those_that_it_leaves_open() -> None:
    asked = watched.terms(Watch(answers=7, drift=1.0), Limits(watch_failures=9))
    assert (asked.answers, asked.drift, asked.failures) == (7, 1.0, 9)
    assert asked.seconds == Limits().watch_s


def test_faults_send_a_version_back_at_the_third_and_not_before() -> None:
    assert verdicts(Tally(), [Seen(fault=True)] * 2) == ""
    assert "3 of 3 answers were faults" in verdicts(Tally(), [Seen(fault=True)] * 3)


def test_faults_that_the_version_before_had_too_are_not_held_against_the_new_one() -> None:
    mixed = [Seen(fault=number % 5 == 0) for number in range(100)]
    assert verdicts(tally(mixed), mixed) == ""
    assert verdicts(Tally(), mixed) != ""


def test_a_few_faults_in_a_long_watch_are_tolerated() -> None:
    assert verdicts(Tally(), [Seen()] * 200 + [Seen(fault=True)] * 5) == ""


def test_a_version_that_is_ten_times_slower_is_sent_back_with_both_figures() -> None:
    reason = verdicts(tally(answers(100, 1, ms=10)), answers(40, 2, ms=100))
    assert "ms before" in reason
    assert "p95" in reason


def test_single_hiccups_do_not_make_a_version_slow() -> None:
    calm = answers(100, 1)
    with_hiccups = [Seen(row_ms=500.0, classes=s.classes) if n % 30 == 7 else s for n, s in enumerate(calm)]
    assert verdicts(tally(calm), with_hiccups) == ""


def test_an_absolute_limit_of_the_manifest_needs_no_version_before() -> None:
    asked = watched.terms(Watch(p95_ms=5.0, answers=1000), Limits())
    assert "5.00 ms a row" in verdicts(Tally(), answers(40, 1, ms=20), asked)
    assert verdicts(Tally(), answers(40, 1), asked) == ""


@pytest.mark.parametrize("classes", [2, 4, 10])
@pytest.mark.parametrize("collapsed", [0, 1, 99])
def test_a_version_that_gives_everything_the_same_class_is_sent_back_within_forty_answers(
    classes: int, collapsed: int
) -> None:
    reason = verdicts(tally(answers(100, 1, (1.0,) * classes)), [Seen(classes=(collapsed,))] * 40)
    assert "other classes" in reason


def test_a_picture_that_stands_still_and_is_now_taken_for_something_else_is_no_drift() -> None:
    assert verdicts(tally([Seen(classes=(2,))] * 100), [Seen(classes=(3,))] * 100) == ""


def test_outputs_without_classes_that_move_far_are_drift_and_noise_is_not() -> None:
    draw = random.Random(5)
    before = tally(Seen(level=draw.gauss(10, 1)) for _ in range(60))
    assert "other values" in verdicts(before, [Seen(level=draw.gauss(14, 1)) for _ in range(40)])
    assert verdicts(before, [Seen(level=draw.gauss(10, 1)) for _ in range(40)]) == ""


def test_a_moderate_change_of_what_people_ask_is_no_drift() -> None:
    assert verdicts(tally(answers(200, 1, (4, 3, 2, 2))), answers(200, 2, (2, 2, 3, 4))) == ""


@given(st.integers(0, 10_000), st.integers(2, 12), st.integers(20, 120))
def test_the_same_kind_of_answers_never_sends_a_version_back(seed: int, classes: int, count: int) -> None:
    weights = (1.0,) * classes
    assert verdicts(tally(answers(count, seed, weights)), answers(count, seed + 1, weights)) == ""


def test_crashes_count_to_the_limit() -> None:
    asked = watched.terms(Watch(crashes=2), Limits())
    now = Tally()
    now.crashes = 1
    assert watched.judge(asked, Tally(), now) == ""
    now.crashes = 2
    assert "2 times" in watched.judge(asked, Tally(), now)


def test_what_is_not_looked_at_sends_nobody_back() -> None:
    asked = watched.terms(Watch(answers=1000, drift=1.0, p95_ratio=0.0), Limits())
    assert verdicts(tally(answers(100, 1)), [Seen(row_ms=900.0, classes=(0,))] * 100, asked) == ""


def test_the_tail_of_a_binomial_is_what_tables_say() -> None:
    assert watched.chance_of(0, 5, 0.3) == pytest.approx(1.0)
    assert watched.chance_of(5, 5, 0.5) == pytest.approx(1 / 32)
    assert watched.chance_of(6, 20, 0.05) == pytest.approx(3.29e-4, rel=0.01)


def test_only_the_last_answers_are_remembered_and_all_are_counted() -> None:
    many = tally([Seen(row_ms=1.0, classes=(1, 2))] * 400)
    assert many.answers == 400
    assert len(many.row_ms) == len(many.classes) == watched.REMEMBERED
