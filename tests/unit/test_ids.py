"""Ids of requests: in order, whatever the clock does, and fit to be a span's."""

from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from controller.ids import Ordered


@given(st.lists(st.tuples(st.integers(0, 4_000_000_000 * 10**9), st.integers(0, 4095)), min_size=1))
def test_each_id_is_greater_than_the_one_before_also_where_the_clock_goes_back(calls: list[tuple[int, int]]) -> None:
    now, chance = (iter(each) for each in zip(*calls, strict=True))
    new_id = Ordered("request", lambda: next(now), lambda bits: next(chance))
    ids = [new_id() for _ in calls]
    assert all(before < after for before, after in pairwise(ids))
    assert all(re.fullmatch("request-[0-9a-f]{16}", each) for each in ids)


def test_an_id_tells_the_microsecond_and_differs_by_chance() -> None:
    def drawn(chance: int) -> str:
        return Ordered("request", lambda: 1_800_000_000_123_456_789, lambda bits: chance)()

    assert int(drawn(7)[-16:], 16) >> 12 == 1_800_000_000_123_456
    assert drawn(7) != drawn(8)
