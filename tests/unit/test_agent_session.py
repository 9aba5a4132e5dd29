"""Guarantees of the agent's session: generations never go back, a lease is computed at most once."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from agent import session
from agent.contract.messages import Desired, Work
from agent.session import (
    Apply,
    Connected,
    ControllerSeen,
    DesiredArrived,
    Disconnected,
    Finished,
    Forget,
    Leased,
    Queue,
    Refuse,
    Report,
    SayHello,
    Session,
    Taken,
    Ticked,
)  # fmt: skip

ARTIFACT = hashlib.sha256(b"").hexdigest()


def work(shard: int = 0, attempt: int = 1, boot: str = "b1", ttl_ms: float = 1000) -> Work:
    return Work(job="j", shard=shard, attempt=attempt, ttl_ms=ttl_ms, model="m", artifact=ARTIFACT, boot=boot)


def fresh() -> Session:
    return Session(agent="edge-1", remember=50)


events = st.one_of(
    st.builds(Connected, st.text("ab", max_size=2)),
    st.just(Disconnected()),
    st.builds(ControllerSeen, st.sampled_from(["b1", "b2"]), st.integers(0, 2), st.booleans(), st.floats(0, 1)),
    st.builds(
        lambda name, generation: DesiredArrived(Desired(agent=name, generation=generation)),
        st.sampled_from(["edge-1", "edge-2"]),
        st.integers(0, 5),
    ),
    st.builds(
        lambda s, a, b: Leased(work(s, a, b)), st.integers(0, 2), st.integers(1, 2), st.sampled_from(["b1", "b2"])
    ),
    st.builds(lambda s, a: Taken(("j", s, a)), st.integers(0, 2), st.integers(1, 2)),
    st.builds(lambda s, a: Finished(("j", s, a)), st.integers(0, 2), st.integers(1, 2)),
    st.just(Ticked()),
)


@given(st.lists(st.tuples(events, st.floats(0, 1)), max_size=60))
def test_the_generation_never_goes_back_and_only_newer_desired_states_are_applied(
    steps: list[tuple[session.Event, float]],
) -> None:
    state, now = fresh(), 0.0
    for event, pause in steps:
        now += pause
        before = state
        state, actions = session.step(state, event, now)
        assert state.generation >= before.generation
        for action in actions:
            if isinstance(action, Apply):
                assert action.desired.agent == state.agent
                assert action.desired.generation == state.generation > before.generation


@given(st.lists(st.tuples(events, st.floats(0, 1)), max_size=60))
def test_a_shard_is_queued_once_per_attempt_until_it_was_forgotten(steps: list[tuple[session.Event, float]]) -> None:
    state, now = fresh(), 0.0
    queued: set[session.LeaseKey] = set()
    finished: set[session.LeaseKey] = set()
    for event, pause in steps:
        now += pause
        state, actions = session.step(state, event, now)
        if isinstance(event, Finished):
            finished.add(event.key)
            queued.discard(event.key)
        for action in actions:
            if isinstance(action, Queue):
                assert action.key not in queued
                assert action.key not in finished
                queued.add(action.key)
            elif isinstance(action, Forget):
                queued.discard(action.key)


def test_a_desired_state_of_another_agent_or_an_older_one_is_refused_and_the_same_is_reported_again() -> None:
    state = Session(agent="edge-1", generation=3)
    for name, generation, kind in (("edge-2", 9, Refuse), ("edge-1", 2, Refuse), ("edge-1", 3, Report)):
        after, actions = session.step(state, DesiredArrived(Desired(agent=name, generation=generation)), 0.0)
        assert after == state
        assert [type(a) for a in actions] == [kind]


def test_a_new_controller_boot_asks_for_a_hello_within_its_jitter_and_drops_waiting_leases_of_the_old_one() -> None:
    state, _ = session.step(fresh(), ControllerSeen("b1", 1, True, 0.3), 0.0)
    state, _ = session.step(state, Leased(work(0)), 0.0)
    state, _ = session.step(state, Leased(work(1)), 0.0)
    state, _ = session.step(state, Taken(("j", 1, 1)), 0.0)
    assert session.step(state, ControllerSeen("b1", 1, True, 0.3), 0.0)[1] == []
    state, actions = session.step(state, ControllerSeen("b2", 1, True, 0.7), 0.0)
    assert actions == [SayHello(0.7), Forget(("j", 0, 1))]
    assert list(state.leases) == [("j", 1, 1)]


def test_a_controller_that_announces_itself_again_hears_hello_again_and_leases_stay() -> None:
    state, _ = session.step(fresh(), ControllerSeen("b1", 1, True, 0.3), 0.0)
    state, _ = session.step(state, Leased(work(0)), 0.0)
    state, actions = session.step(state, ControllerSeen("b1", 9, True, 0.4), 0.0)
    assert actions == [SayHello(0.4)]
    assert state.leases


def test_an_offline_controller_asks_for_nothing() -> None:
    assert session.step(fresh(), ControllerSeen("b1", 1, False, 0.1), 0.0) == (fresh(), [])


def test_a_lease_counts_from_receipt_and_is_not_computed_after_it_ran_out() -> None:
    state, _ = session.step(fresh(), Leased(work(ttl_ms=500)), 100.0)
    assert session.step(state, Taken(("j", 0, 1)), 100.4)[1] == []
    assert session.step(state, Taken(("j", 0, 1)), 100.5)[1] == [Forget(("j", 0, 1))]
    assert session.step(state, Ticked(), 100.6)[1] == [Forget(("j", 0, 1))]


def test_leases_of_an_earlier_connection_are_dropped_when_a_new_one_stands() -> None:
    state, _ = session.step(fresh(), Connected("s1"), 0.0)
    state, _ = session.step(state, Leased(work()), 0.0)
    state, actions = session.step(state, Disconnected(), 0.1)
    assert actions == []
    assert state.leases
    state, actions = session.step(state, Connected("s2"), 0.2)
    assert [type(a) for a in actions] == [SayHello, Forget]
    assert not state.leases


def test_what_is_remembered_of_finished_shards_is_bounded() -> None:
    state = fresh()
    for shard in range(200):
        state, _ = session.step(state, Finished(("j", shard, 1)), 0.0)
    assert len(state.finished) == 50
