"""Guarantees of the swap's table: only known steps, refusals end it, the way back is always there."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import swap
from agent.contract.manifest import Acceptance, FileRef, Limits, Manifest, Parity
from agent.contract.messages import DesiredModel, ProbeResult

DIGEST = "ab" * 32
TARGET = DesiredModel(model="digits", version=2, artifact=DIGEST, manifest=DIGEST, profile="x86-cpu")
MANIFEST = Manifest(
    model="digits", version=2, profile="x86-cpu", sequence=2, issued_at=0, source=DIGEST,
    files={role: FileRef(DIGEST, 1) for role in ("model", "parity", "acceptance")}, inputs=(), outputs=(), operators=(),
    parity=Parity(0.95, 15.0), acceptance=Acceptance(0.9, 0.02), limits=Limits(memory_mb=50, latency_ms=10),
)  # fmt: skip
GOOD = ProbeResult(agreement=1.0, sqnr_db=30.0, accuracy=0.95, latency_ms=1.0, memory_mb=20.0)
HAPPY: list[swap.Event] = [
    swap.Fetched(), swap.Verified(MANIFEST), swap.Fetched(), swap.Ready(), swap.Probed(GOOD, 0.95), swap.Saved(),
    swap.Steady(),
]  # fmt: skip
EVENTS: list[swap.Event] = [
    *HAPPY, swap.Broken("device", "b"), swap.Refused("us", "r"), swap.Lost("l"), swap.Superseded(),
    swap.Probed(msgspec.structs.replace(GOOD, accuracy=0.1), None),
]  # fmt: skip


def play(events: list[swap.Event]) -> tuple[swap.Swap, list[swap.Action]]:
    state, actions = swap.begin(TARGET)
    for event in events:
        state, more = swap.step(state, event)
        actions += more
    return state, actions


def test_the_straight_way_saves_before_it_routes_and_commits_last() -> None:
    state, actions = play(HAPPY)
    kinds = [type(a).__name__ for a in actions if not isinstance(a, swap.Report)]
    assert state.state == "serving"
    assert kinds == [
        "FetchManifest", "Verify", "FetchFiles", "Stage", "Probe", "SavePointers", "Route", "Commit", "Finish",
    ]  # fmt: skip
    assert actions[-2] == swap.Finish("committed")


@pytest.mark.parametrize("steps", range(5))
def test_before_the_switch_a_failure_discards_the_candidate_and_touches_nothing_that_serves(steps: int) -> None:
    state, _ = play(HAPPY[:steps])
    for event in (swap.Broken("device", "x"), swap.Refused("us", "x"), swap.Lost("x"), swap.Superseded()):
        if (state.state, type(event)) in swap._TABLE:
            after, actions = swap.step(state, event)
            assert after.ended
            assert isinstance(actions[0], swap.Discard)
            assert not any(isinstance(a, swap.Route | swap.RollBack | swap.SavePointers) for a in actions)


def test_while_watched_a_dead_worker_rolls_back() -> None:
    state, _ = play(HAPPY[:-1])
    state, actions = swap.step(state, swap.Lost("killed by SIGSEGV"))
    assert state.state == "rolled_back"
    assert "SIGSEGV" in state.reason
    assert actions[:2] == [swap.RollBack(), swap.Finish("rolled_back")]


@given(st.lists(st.sampled_from(EVENTS), max_size=14))
def test_any_order_of_events_either_follows_the_table_or_raises_with_the_history(events: list[swap.Event]) -> None:
    state, _ = swap.begin(TARGET)
    for event in events:
        if (state.state, type(event)) not in swap._TABLE:
            with pytest.raises(swap.SwapError, match=state.history[-1] if state.history else "the start"):
                swap.step(state, event)
            continue
        state, actions = swap.step(state, event)
        if any(isinstance(a, swap.Route) for a in actions):
            assert state.probe is not None
            assert not swap.judge(MANIFEST, state.probe, state.probe.serving_accuracy)


@pytest.mark.parametrize(
    ("change", "serving", "words"),
    [
        ({"agreement": 0.94}, None, "parity set"),
        ({"sqnr_db": 14.9}, None, "dB"),
        ({"accuracy": 0.89}, None, "acceptance set"),
        ({"accuracy": 0.92}, 0.95, "against what serves"),
        ({"latency_ms": 10.1}, None, "the limit is 10.00 ms"),
        ({"memory_mb": 50.1}, None, "the limit is 50.0 MB"),
    ],
)
def test_a_candidate_that_misses_one_promise_is_refused_with_the_figures(
    change: dict[str, float], serving: float | None, words: str
) -> None:
    state, _ = play(HAPPY[:4])
    state, actions = swap.step(state, swap.Probed(msgspec.structs.replace(GOOD, **change), serving))
    assert state.state == "refused"
    assert words in state.reason
    assert isinstance(actions[0], swap.Discard)


def test_exactly_what_was_promised_is_enough() -> None:
    edge = ProbeResult(agreement=0.95, sqnr_db=15.0, accuracy=0.93, latency_ms=10.0, memory_mb=50.0)
    assert swap.judge(MANIFEST, edge, 0.95) == ""
