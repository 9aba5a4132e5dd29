"""Killed at any fault point of an update, and again while it recovers, the agent serves within seconds and ends it.

A seeded part with real processes; `python -m tests.killpoints` takes every point at every pass.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from agent.contract import topics
from agent.contract.messages import Reported
from tests import builders, faultpoints
from tests.fake_controller import AgentProcess, FakeController
from tests.killpoints import NEW, OLD, Victim

ROW = {"x": np.linspace(-2, 2, builders.FEATURES, dtype=np.float32).reshape(1, -1)}
_CHANCE = random.Random(11)
# What an update that goes well does not come by: a failing disk, a bad version, little memory, a shadow phase.
_ELSEWHERE = {"swap.RollBack", "swap.Discard", "swap.MakeRoom", "swap.Resume", "swap.Shadow"}
_CASES = [
    (point, _CHANCE.choice((1, 2)), _CHANCE.choice(["state.write", "swap.Route", "blobs.after_rename"]))
    for point in _CHANCE.sample(sorted(set(faultpoints.of_an_update()) - _ELSEWHERE), 4)
]


@pytest.fixture
def victim(tmp_path: Path, controller: FakeController) -> Iterator[Victim]:
    victim = Victim(tmp_path, controller)
    yield victim
    victim.close()


@pytest.mark.parametrize(("point", "on_pass", "again"), _CASES)
def test_killed_there_and_again_in_the_recovery_the_agent_serves_and_ends_the_update(
    victim: Victim, point: str, on_pass: int, again: str
) -> None:
    # Some points are passed only once; then the first pass is the one.
    assert victim.kill(point, on_pass, again) or victim.kill(point, 1, again)
    assert victim.tally.unusable == []


@pytest.mark.parametrize("point", ["swap.Discard", "swap.Finish"])
def test_killed_while_a_bad_version_is_refused_the_old_one_serves_on_and_it_is_refused_again(
    victim: Victim, point: str
) -> None:
    assert victim.kill(point, update="bad")
    assert victim.tally.unusable == []


@pytest.mark.parametrize("again", ["", "swap.RollBack", "state.before_rename"])
def test_killed_while_a_version_under_watch_goes_back_the_old_one_serves_and_the_new_one_stays_away(
    victim: Victim, again: str
) -> None:
    assert victim.kill("swap.RollBack", again=again, update="worse")
    assert victim.tally.unusable == []


def test_killed_where_a_shadow_phase_begins_the_update_ends_as_it_would_have(victim: Victim) -> None:
    assert victim.kill("swap.Shadow", update="worse")
    assert victim.tally.unusable == []


def test_a_zygote_killed_in_the_middle_of_an_update_fails_one_try_and_condemns_no_version(
    controller: FakeController, tmp_path: Path
) -> None:
    agent = AgentProcess(tmp_path, controller, "edge-zygote")
    try:
        agent.start(faults="zygote.fork=kill@2")
        old = controller.serve(agent.name, builders.classifier(1))
        assert controller.infer(agent.name, old, ROW).version == OLD
        new = controller.release(builders.classifier(2), version=NEW)
        controller.desire(agent.name, new)
        assert "fork parent ended" in controller.state(new, "failed").reason
        assert controller.infer(agent.name, old, ROW).version == OLD
        assert agent.stop() == 0
        agent.start()
        controller.state(new, "serving")
    finally:
        agent.__exit__(None, None, None)


def test_a_zygote_killed_between_the_candidates_last_word_and_the_saved_state_blames_no_version(
    controller: FakeController, tmp_path: Path
) -> None:
    agent = AgentProcess(tmp_path, controller, "edge-between", "[limits]\nwatch_s = 0.3\n")
    try:
        # Whatever is written takes so long that the kill falls between.
        agent.start(faults="state.before_rename=delay:700")
        old = controller.serve(agent.name, builders.classifier(1))
        new = controller.release(builders.classifier(2), version=NEW)
        controller.forget()
        controller.desire(agent.name, new)
        controller.state(new, "switching")
        (zygote,) = agent.process.children()
        zygote.kill()
        controller.state(new, "serving")
        assert controller.swap(new).outcome == "committed"
        assert controller.infer(agent.name, old, ROW).version == NEW
        states = [state for report in controller.heard(Reported) for state in report.models]
        assert [s for s in states if s.manifest == new.manifest and s.state in ("failed", "refused")] == []
    finally:
        agent.__exit__(None, None, None)


def test_an_agent_that_goes_down_again_and_again_with_a_new_version_goes_back_by_itself_without_its_controller(
    controller: FakeController, tmp_path: Path
) -> None:
    agent = AgentProcess(tmp_path, controller, "edge-loop", "[limits]\nwatch_s = 0.1\ncrash_starts = 2\n")
    try:
        agent.start()
        old = controller.serve(agent.name, builders.classifier(1))
        new = controller.serve(agent.name, builders.classifier(2), version=NEW)
        controller.swap(new)
        agent.kill()
        controller.publish(topics.agent(agent.name, "desired"), b"", retain=True)
        for _ in range(2):
            controller.forget()
            agent.start()
            controller.state(new, "serving")
            agent.kill()
        controller.forget()
        agent.start()
        controller.state(old, "serving")
        assert "went down 2 times" in controller.state(new, "failed").reason
        assert controller.infer(agent.name, old, ROW).version == OLD
    finally:
        agent.__exit__(None, None, None)


def test_every_fault_point_of_the_program_is_armed_by_a_test() -> None:
    armed = set(faultpoints.of_an_update())
    text = "".join(path.read_text() for path in Path(faultpoints.ROOT, "tests").rglob("test_*.py"))
    found = set().union(*(faultpoints.of(package) for package in ("agent", "controller")))
    assert len(found) > 20
    assert sorted(point for point in found - armed if point not in text) == []


def test_the_fault_points_of_an_update_are_those_of_disk_and_swap() -> None:
    assert {point.partition(".")[0] for point in faultpoints.of_an_update()} == {"blobs", "fetch", "state", "swap"}
