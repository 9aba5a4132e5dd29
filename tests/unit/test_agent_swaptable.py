"""Guarantees of the swap's table: only known steps, refusals end it, the way back is always there."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent import swap
from agent.contract.manifest import Acceptance, FileRef, Limits, Manifest, Parity, Shadow
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
    swap.Cramped(), swap.Drained(), swap.Agreed(),
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


CRAMPED: list[swap.Event] = [swap.Fetched(), swap.Verified(MANIFEST), swap.Fetched(), swap.Cramped()]
SHADOWED = msgspec.structs.replace(MANIFEST, shadow=Shadow(requests=50))


def test_without_room_for_two_the_old_worker_is_gone_before_the_candidate_is_staged() -> None:
    state, actions = play([*CRAMPED, swap.Drained(), swap.Ready(), swap.Probed(GOOD, 0.95), swap.Saved()])
    kinds = [type(a).__name__ for a in actions if not isinstance(a, swap.Report)]
    assert kinds[3:] == ["Stage", "MakeRoom", "Stage", "Probe", "SavePointers", "Route"]
    assert (state.state, state.alone) == ("watching", True)


@pytest.mark.parametrize(
    "events",
    [
        [swap.Broken("device", "b")],
        [swap.Superseded()],
        [swap.Drained(), swap.Refused("us", "r")],
        [swap.Drained(), swap.Lost("l")],
        [swap.Drained(), swap.Superseded()],
        [swap.Drained(), swap.Ready(), swap.Broken("device", "b")],
        [swap.Drained(), swap.Ready(), swap.Probed(msgspec.structs.replace(GOOD, accuracy=0.1), None)],
        [swap.Drained(), swap.Ready(), swap.Probed(GOOD, None), swap.Broken("device", "disk")],
    ],
)
def test_once_the_old_worker_has_left_every_way_out_before_the_switch_loads_it_again(events: list[swap.Event]) -> None:
    state, actions = play([*CRAMPED, *events])
    assert state.ended
    assert [type(a) for a in actions].count(swap.Resume) == 1
    assert actions.index(swap.Resume()) > actions.index(swap.Discard())


def test_a_shadow_phase_comes_only_where_the_manifest_asks_and_something_serves() -> None:
    asked = [HAPPY[0], swap.Verified(SHADOWED), *HAPPY[2:5]]
    state, actions = play(asked)
    assert (state.state, actions[-1]) == ("shadowing", swap.Shadow())
    assert play([*asked, swap.Agreed()])[0].state == "switching"
    assert play([*asked, swap.Refused("user", "differs")])[0].state == "refused"
    alone = [HAPPY[0], swap.Verified(SHADOWED), HAPPY[2], swap.Cramped(), swap.Drained(), *HAPPY[3:5]]
    assert play(alone)[0].state == "switching"


class Swapping(RuleBasedStateMachine):
    """One slot through many swaps: events late, twice, in any order. `loaded` is who could answer a request."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: set[str] = {"old"}
        self.state, actions = swap.begin(TARGET)
        self.perform(actions)

    @rule(event=st.sampled_from(EVENTS), shadowed=st.booleans())
    def hear(self, event: swap.Event, shadowed: bool) -> None:
        if isinstance(event, swap.Verified) and shadowed:
            event = swap.Verified(SHADOWED)
        before = self.state
        if (before.state, type(event)) not in swap._TABLE:
            with pytest.raises(swap.SwapError, match=before.target.model):
                swap.step(before, event)
            return  # Told, and nothing has changed.
        self.state, actions = swap.step(before, event)
        self.perform(actions)

    @rule()
    def begin_again(self) -> None:
        if self.state.ended:
            self.loaded = {"old"}  # What serves now is what the next version replaces.
            self.state, actions = swap.begin(TARGET)
            self.perform(actions)

    def perform(self, actions: list[swap.Action]) -> None:
        for action in actions:
            if isinstance(action, swap.MakeRoom):
                self.loaded.discard("old")
            elif isinstance(action, swap.Route):
                self.loaded = {"new"}
            elif isinstance(action, swap.Resume | swap.RollBack):
                assert "old" not in self.loaded, "it is loaded already"
                self.loaded = {"old"}

    @invariant()
    def somebody_answers_except_in_the_announced_window(self) -> None:
        if self.state.alone and self.state.state in ("draining", "staging", "probing", "switching"):
            assert self.loaded == set()
        else:
            assert len(self.loaded) == 1

    @invariant()
    def what_serves_after_the_end_is_what_the_outcome_says(self) -> None:
        if self.state.ended:
            assert self.loaded == ({"new"} if self.state.state == "serving" else {"old"})


TestSwapping = Swapping.TestCase
