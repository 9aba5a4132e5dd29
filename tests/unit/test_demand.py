"""What a request for a model that no device can answer begins, and what it never begins again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller import tracing
from controller.api.policies import wait_of
from controller.demand import Optimize, Place, Ready, Refuse, Situation, Wait, decide
from controller.policy import ON_DEMAND

HERE = Situation("digits", 2, "place", False, "pi-1: does not serve this model", calls_for={"pi-1": "rpi4"})
BUILT = replace(HERE, fits={"pi-1": "rpi4"}, built=frozenset({"rpi4"}))
CAN_RUN = replace(HERE, policy="optimize", fits={"pi-1": None}, with_data=True)
_NAMES = st.sampled_from(["rpi4", "x86-cpu"])
SITUATIONS = st.builds(
    Situation,
    model=st.just("digits"),
    version=st.just(1),
    policy=st.sampled_from(ON_DEMAND),
    ready=st.booleans(),
    why_not=st.just("no"),
    withdrawn=st.booleans(),
    rollout=st.none() | st.just("rollout-1"),
    last_rollout=st.none()
    | st.tuples(st.just("rollout-0"), st.sampled_from(["done", "failed", "aborted", "withdrawn"])),
    run=st.none() | st.just("run-1"),
    fits=st.dictionaries(st.sampled_from("ab"), st.none() | _NAMES),
    calls_for=st.dictionaries(st.sampled_from("ab"), st.none() | _NAMES),
    told=st.dictionaries(st.sampled_from("ab"), st.sampled_from(["", "fetching", "refused", "failed"])),
    built=st.frozensets(_NAMES),
    unsigned=st.frozensets(_NAMES),
    tried=st.dictionaries(_NAMES, st.just("run-0")),
    with_data=st.booleans(),
)


@given(SITUATIONS)
def test_a_request_never_begins_what_its_policy_forbids_or_what_failed_before(situation: Situation) -> None:
    decision = decide(situation)
    if isinstance(decision, Place | Optimize):
        assert situation.policy != "off"
        assert (situation.rollout, situation.run) == (None, None)
        assert not situation.withdrawn
        assert situation.last_rollout is None or situation.last_rollout[1] == "done"
    if isinstance(decision, Optimize):
        assert situation.policy == "optimize"
        assert situation.with_data
        assert not set(decision.profiles) & (set(situation.tried) | situation.built | situation.unsigned)
    assert (decision == Ready()) == situation.ready
    if isinstance(decision, Refuse):
        assert decision.reason
        assert decision.hint


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Place()),
        ({"ready": True}, Ready()),
        ({"rollout": "rollout-1"}, Wait("rollout", "rollout-1")),
        ({"run": "run-1"}, Wait("run", "run-1")),
        ({"told": {"pi-1": "fetching"}}, Wait("installation")),
        ({"told": {"pi-1": ""}}, Wait("installation")),
    ],
)
def test_what_is_under_way_is_waited_for_and_else_what_is_built_is_placed(
    changes: dict[str, Any], expected: object
) -> None:
    assert decide(replace(BUILT, **changes)) == expected


@pytest.mark.parametrize(
    ("situation", "reason"),
    [
        (replace(BUILT, policy="off"), "does not serve"),
        (replace(BUILT, last_rollout=("rollout-1", "aborted")), "rollout-1 was aborted"),
        (replace(BUILT, calls_for={}), "does not serve"),
        (replace(CAN_RUN, policy="place"), "was not built for rpi4"),
        (replace(CAN_RUN, with_data=False), "needs the data"),
        (replace(CAN_RUN, tried={"rpi4": "run-7"}), "run-7 did not bring it about"),
        (replace(CAN_RUN, unsigned=frozenset({"rpi4"})), "waits for the release key's signature"),
    ],
)
def test_a_refusal_says_why(situation: Situation, reason: str) -> None:
    decision = decide(situation)
    assert isinstance(decision, Refuse)
    assert reason in decision.reason


def test_a_run_is_for_the_missing_profiles_alone() -> None:
    both = replace(CAN_RUN, calls_for={"pi-1": "rpi4", "pc": "x86-cpu"}, built=frozenset({"x86-cpu"}))
    assert decide(both) == Optimize(("rpi4",))


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [(None, None), ("", None), ("respond-async", 0.0), ("wait=10", 10.0), ("respond-async, wait=3", 3.0), ("x", None)],
)
def test_the_header_prefer_says_how_long_a_caller_waits(prefer: str | None, seconds: float | None) -> None:
    assert wait_of(prefer) == seconds


_HEX = st.text("0123456789abcdef", min_size=16, max_size=16)


@given(st.tuples(_HEX, _HEX).map("".join).filter(lambda t: int(t, 16) > 0), _HEX.filter(lambda s: int(s, 16) > 0))
def test_a_trace_that_is_handed_on_keeps_its_id(trace: str, span: str) -> None:
    assert tracing.parse(tracing.header(trace, f"request-{span}")) == trace
    assert tracing.header(trace, f"request-{span}.2") == tracing.header(trace, f"request-{span}")


@pytest.mark.parametrize(
    "bad", ["", "x", "ff-" + "1" * 32 + "-" + "1" * 16 + "-01", "00-" + "0" * 32 + "-" + "1" * 16 + "-01"]
)
def test_a_header_that_is_no_trace_is_ignored(bad: str) -> None:
    assert tracing.parse(bad) is None
