"""Which device answers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

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
        way_ms=st.floats(0, 100),
        shard_ms=st.floats(0, 100),
        window=st.integers(2, 20),
        held=st.integers(0, 20),
    ),
    unique_by=lambda c: c.device,
)


@given(fleet=candidates, draw=st.floats(0, 1, exclude_max=True))
def test_only_a_device_that_is_online_serves_and_does_not_drain_is_chosen(fleet: list[Candidate], draw: float) -> None:
    route = choose(fleet, frozenset(), draw)
    feasible = [c for c in fleet if c.online and c.artifact and not c.draining]
    if isinstance(route, Route):
        chosen = next(c for c in feasible if c.device == route.device)
        assert chosen.held < chosen.window
        assert expected_ms(chosen) == route.expected_ms
    else:
        assert all(c.held >= c.window for c in feasible)
        assert route.full == bool(feasible)
        assert len(route.reasons) == max(1, len(fleet))


@given(fleet=candidates, draw=st.floats(0, 1, exclude_max=True))
def test_of_several_the_slowest_is_never_chosen(fleet: list[Candidate], draw: float) -> None:
    route = choose(fleet, frozenset(), draw)
    if isinstance(route, Route):
        times = sorted(
            expected_ms(c) for c in fleet if c.online and c.artifact and not c.draining and c.held < c.window
        )
        if len(times) > 1 and times[-1] * 0.9 > times[-2]:
            assert route.expected_ms < times[-1]


def test_every_device_is_among_the_two_that_are_compared() -> None:
    fleet = [replace(IDLE, device=name) for name in "abcde"]
    routes = [choose(fleet, frozenset(), number / 100) for number in range(100)]
    assert {r.device for r in routes if isinstance(r, Route)} == set("abcde")


def test_a_full_device_gets_nothing_but_what_was_let_in_before() -> None:
    full = replace(IDLE, held=8, window=8)
    refused = choose([full], frozenset(), 0.0)
    assert isinstance(refused, NoRoute)
    assert refused.full
    assert refused.reasons == ("a: has 8 requests under way, and may have 8",)
    assert isinstance(choose([full], frozenset({"b"}), 0.0, admitted=True), Route)
    assert choose([full, replace(IDLE, device="b", cpu=1.0)], frozenset(), 0.0) == choose(
        [replace(IDLE, device="b", cpu=1.0)], frozenset(), 0.0
    )


def test_the_shorter_queue_wins_and_so_do_the_faster_the_nearer_and_the_cooler_device() -> None:
    slower = replace(IDLE, service_ms=4.0), replace(IDLE, way_ms=5.0), replace(IDLE, shard_ms=50.0)
    for worse in (replace(IDLE, outstanding=3), replace(IDLE, cpu=0.9), *slower):
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
