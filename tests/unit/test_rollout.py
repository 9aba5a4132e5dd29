"""A rollout in one wave, decided without a clock."""

from __future__ import annotations

import pytest

from controller import rollout as r
from controller.rollout import Rollout, RolloutError, Share

OLD, NEW = "0" * 64, "1" * 64


def fresh(*devices: str) -> Rollout:
    return Rollout("ro-1", "re-1", "digits", 2, tuple(Share(d, "x86-cpu", NEW) for d in devices))


def started(*devices: str, online: frozenset[str] | None = None) -> Rollout:
    state, _ = r.step(fresh(*devices), r.Started(online if online is not None else frozenset(devices), 60), 0.0)
    return state


def state_of(rollout: Rollout, device: str) -> str:
    return next(s.state for s in rollout.shares if s.device == device)


def test_every_device_with_an_artifact_is_told_at_once() -> None:
    state, actions = r.step(fresh("a", "b"), r.Started(frozenset({"a", "b"}), 60), 0.0)
    assert actions == [r.SetDesired("a", "x86-cpu"), r.SetDesired("b", "x86-cpu")]
    assert state.state == r.RUNNING


def test_it_is_done_when_every_device_serves() -> None:
    state = started("a", "b")
    state, _ = r.step(state, r.Reported("a", NEW, "serving"), 1.0)
    assert state.open
    state, _ = r.step(state, r.Reported("b", NEW, "serving"), 1.0)
    assert state.state == r.DONE


def test_a_refusing_device_goes_back_to_what_it_had_and_the_rollout_fails() -> None:
    state, actions = r.step(started("a"), r.Reported("a", NEW, "refused", "accuracy 0.1 under 0.9"), 1.0)
    assert actions == [r.Restore("a")]
    assert state.state == r.BROKEN
    assert state.shares[0].reason == "accuracy 0.1 under 0.9"


def test_reports_of_another_artifact_or_of_steps_on_the_way_change_nothing() -> None:
    state = started("a")
    assert r.step(state, r.Reported("a", OLD, "serving"), 1.0) == (state, [])
    assert r.step(state, r.Reported("a", NEW, "probing"), 1.0) == (state, [])
    assert r.step(state, r.Reported("stranger", NEW, "serving"), 1.0) == (state, [])


def test_an_offline_device_is_told_too_and_does_not_hold_up_the_others() -> None:
    state, actions = r.step(fresh("a", "b"), r.Started(frozenset({"a"}), 60), 0.0)
    assert r.SetDesired("b", "x86-cpu") in actions
    state, _ = r.step(state, r.Reported("a", NEW, "serving"), 1.0)
    assert (state.state, state_of(state, "b")) == (r.DONE, r.LOST)


def test_a_device_that_goes_away_and_returns_in_time_still_counts() -> None:
    state, _ = r.step(started("a", "b"), r.Gone("a"), 1.0)
    assert state_of(state, "a") == r.LOST
    state, _ = r.step(state, r.Reported("a", NEW, "serving"), 2.0)
    assert state_of(state, "a") == r.SERVING


def test_a_silent_device_is_waited_for_only_until_the_deadline() -> None:
    state = started("a", "b")
    state, _ = r.step(state, r.Reported("a", NEW, "serving"), 1.0)
    state, _ = r.step(state, r.Ticked(), 59.0)
    assert state.open
    state, _ = r.step(state, r.Ticked(), 60.0)
    assert (state.state, state_of(state, "b")) == (r.DONE, r.LOST)


def test_an_empty_fleet_is_done_at_once() -> None:
    state, actions = r.step(fresh(), r.Started(frozenset(), 60), 0.0)
    assert (state.state, actions) == (r.DONE, [])


def test_a_fleet_in_which_nobody_has_an_artifact_fails_with_the_reasons() -> None:
    nobody = Rollout("ro", "re", "m", 1, (Share("a", None, None, reason="it fits no profile"),))
    state, _ = r.step(nobody, r.Started(frozenset({"a"}), 60), 0.0)
    assert state.state == r.BROKEN
    assert state.shares[0].reason == "it fits no profile"


def test_aborting_restores_every_device_that_was_told() -> None:
    state, actions = r.step(started("a", "b"), r.Aborted(), 1.0)
    assert state.state == r.ABORTED
    assert actions == [r.Restore("a"), r.Restore("b")]


def test_nothing_moves_after_the_end() -> None:
    state, _ = r.step(started("a"), r.Reported("a", NEW, "serving"), 1.0)
    assert r.step(state, r.Aborted(), 2.0) == (state, [])


def test_a_step_that_cannot_follow_raises_with_the_history() -> None:
    state = started("a")
    with pytest.raises(RolloutError, match="no-artifact cannot follow sent; history: pending"):
        r._move(state, "a", r.NO_ARTIFACT, "")
