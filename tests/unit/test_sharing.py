"""How jobs share devices."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.sharing import Claim, fractions

NAMES = st.sampled_from(["a", "b", "c"])
CLAIMS = st.lists(
    st.builds(Claim, st.uuids().map(str), st.integers(-1, 1), st.booleans(), st.frozensets(NAMES)),
    max_size=6,
    unique_by=lambda claim: claim.job,
)


def test_equals_share_a_device_and_one_who_is_alone_there_has_it_all() -> None:
    both = [Claim("one", 0, True, frozenset("ab")), Claim("two", 0, True, frozenset("bc"))]
    assert fractions(both) == {"one": {"a": 1.0, "b": 0.5}, "two": {"b": 0.5, "c": 1.0}}


def test_a_higher_priority_goes_first_while_it_has_something_to_hand_out() -> None:
    low = Claim("low", 0, True, frozenset("ab"))
    assert fractions([low, Claim("high", 1, True, frozenset("a"))])["low"] == {"a": 0.0, "b": 1.0}
    assert fractions([low, Claim("high", 1, False, frozenset("a"))])["low"] == {"a": 1.0, "b": 1.0}


@given(claims=CLAIMS)
def test_a_device_is_given_out_once_and_never_lies_idle_while_somebody_waits(claims: list[Claim]) -> None:
    shares = fractions(claims)
    for device in "abc":
        waiting = [claim for claim in claims if claim.waiting and device in claim.devices]
        total = sum(shares[claim.job][device] for claim in waiting)
        assert abs(total - bool(waiting)) < 1e-9
