"""Canaries: hidden, found again, and telling who computes wrongly."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from controller import canaries


@given(shard=st.integers(0, 10**6), own=st.integers(1, 50), count=st.integers(1, 10), rows=st.integers(1, 10**6))
def test_answers_come_back_into_the_order_of_rows_wherever_canaries_were_hidden(
    shard: int, own: int, count: int, rows: int
) -> None:
    hidden = canaries.chosen("job-1", shard, count, rows)
    assert hidden == canaries.chosen("job-1", shard, count, rows)
    assert all(0 <= row < rows for row in hidden)
    sent = np.arange(own + count)[order := canaries.order("job-1", shard, own + count)]
    assert canaries.sorted_back(sent * 10, order).tolist() == [10 * n for n in range(own + count)]


def test_canaries_are_few_rows_and_lie_anywhere_in_a_shard() -> None:
    shards = range(200)
    assert len({row for n in shards for row in canaries.chosen("job-1", n, 4, 10**6)}) == canaries.POOL
    places = {int(np.flatnonzero(canaries.order("job-1", n, 11) == 10)[0]) for n in shards}
    assert places == set(range(11))


def test_the_device_that_differs_from_most_is_found_whatever_the_order() -> None:
    answers = [(device, row) for device in ("a", "b", "bad") for row in range(8)]
    told = []
    for seed in range(3):
        tally = canaries.Tally()
        for n in np.random.default_rng(seed).permutation(len(answers)):
            device, row = answers[n]
            wrong = device == "bad" and row % 4 == 0
            tally.add(device, "1" * 64, [row], {"scores": np.array([[row + wrong]], np.float32)})
        told.append(tally.disagreement())
    assert told == [{"a": 0.0, "b": 0.0, "bad": 0.25}] * 3


def test_where_two_devices_differ_neither_is_blamed() -> None:
    tally = canaries.Tally()
    for device, value in (("a", 1.0), ("b", 2.0)):
        for row, answer in ((0, value), (1, 1.0)):
            tally.add(device, "1" * 64, [row], {"scores": np.array([[answer]], np.float32)})
    assert tally.disagreement() == {"a": 0.0, "b": 0.0}


def test_devices_with_other_artifacts_are_not_compared() -> None:
    tally = canaries.Tally()
    for device, artifact, value in (("a", "1", 1.0), ("b", "2", 2.0)):
        tally.add(device, artifact, [0], {"scores": np.array([[value]], np.float32)})
    assert tally.disagreement() == {"a": 0.0, "b": 0.0}
