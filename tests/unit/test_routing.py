"""Which device answers."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from controller.routing import Candidate, NoRoute, Route, choose, expected_ms

IDLE = Candidate("a", online=True, artifact="1" * 64, outstanding=0, queue=0, service_ms=2.0, cpu=0.0)

candidates = st.lists(
    st.builds(
        Candidate,
        device=st.sampled_from("abcdef"),
        online=st.booleans(),
        artifact=st.one_of(st.none(), st.just("1" * 64)),
        outstanding=st.integers(0, 50),
        queue=st.integers(0, 50),
        service_ms=st.floats(0, 100),
        cpu=st.floats(0, 1),
        draining=st.booleans(),
    ),
    unique_by=lambda c: c.device,
)


@given(fleet=candidates, draw=st.floats(0, 1, exclude_max=True))
def test_only_a_device_that_is_online_serves_and_does_not_drain_is_chosen(fleet: list[Candidate], draw: float) -> None:
    route = choose(fleet, frozenset(), draw)
    feasible = [c for c in fleet if c.online and c.artifact and not c.draining]
    if isinstance(route, Route):
        chosen = next(c for c in feasible if c.device == route.device)
        assert expected_ms(chosen) <= min(expected_ms(c) for c in feasible) + 1.0
    else:
        assert not feasible
        assert len(route.reasons) == max(1, len(fleet))


def test_the_shorter_queue_wins_and_so_do_the_faster_and_the_cooler_device() -> None:
    for worse in (replace(IDLE, outstanding=3), replace(IDLE, service_ms=4.0), replace(IDLE, cpu=0.9)):
        route = choose([replace(worse, device="b"), IDLE], frozenset(), 0.0)
        assert isinstance(route, Route)
        assert route.device == "a"


def test_equals_share_the_load() -> None:
    fleet = [IDLE, replace(IDLE, device="b")]
    routes = [choose(fleet, frozenset(), draw) for draw in (0.1, 0.9)]
    assert {r.device for r in routes if isinstance(r, Route)} == {"a", "b"}


def test_a_retry_goes_to_another_device_and_back_only_when_there_is_none() -> None:
    fleet = [IDLE, replace(IDLE, device="b", outstanding=9)]
    retried = choose(fleet, frozenset({"a"}), 0.0)
    assert isinstance(retried, Route)
    assert retried.device == "b"
    alone = choose([IDLE], frozenset({"a"}), 0.0)
    assert isinstance(alone, Route)


def test_the_reasons_say_why_nobody_can_answer() -> None:
    none = choose([replace(IDLE, online=False), replace(IDLE, device="b", artifact=None)], frozenset(), 0.0)
    assert isinstance(none, NoRoute)
    assert none.reasons == ("a: offline", "b: does not serve this model")
