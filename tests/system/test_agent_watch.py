"""After the switch: a version that passed its probe and then fails is sent back at once, stays away, and says why."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.contract import topics
from agent.contract.manifest import Manifest, Watch
from agent.contract.messages import Answer, DesiredModel, Hello
from tests import broken_models, builders
from tests.fake_controller import AgentProcess, FakeController, until

ROW = broken_models.GENTLE
CONFIG = "[limits]\nwatch_s = 30\nwatch_answers = 60\nretry_first = 0.2\nload_idle = 0.5\ncompute = 0.6\n"


@pytest.fixture
def agent(tmp_path: Path, controller: FakeController, request: pytest.FixtureRequest) -> Iterator[AgentProcess]:
    name = f"edge-{abs(hash(request.node.nodeid)) & 0xFFFFFF:x}"
    with AgentProcess(tmp_path, controller, name, CONFIG) as agent:
        yield agent


def watched(content: bytes, version: int, **terms: Any) -> Manifest:
    manifest = builders.manifest_for(content, builders.golden_for(content), version=version, sequence=version)
    fields = {name: getattr(manifest, name) for name in manifest.__struct_fields__}
    return Manifest(**{**fields, "watch": Watch(**terms)})


def good(controller: FakeController, agent: AgentProcess) -> DesiredModel:
    """Version 1, committed."""
    content = builders.classifier(1)
    wanted = controller.release(content, manifest_=watched(content, 1, seconds=0.1))
    controller.desire(agent.name, wanted)
    controller.state(wanted, "serving")
    return wanted


def under_watch(controller: FakeController, agent: AgentProcess, content: bytes, **terms: Any) -> DesiredModel:
    wanted = controller.release(content, manifest_=watched(content, 2, **terms))
    controller.desire(agent.name, wanted)
    controller.state(wanted, "watching")
    return wanted


def ask(controller: FakeController, agent: AgentProcess, wanted: DesiredModel, inputs: Any, times: int) -> None:
    for _ in range(times):
        request = controller.ask(agent.name, wanted, inputs)
        controller.wait(Answer, lambda a, r=request: a.request == r, "an answer")  # type: ignore[misc]


@pytest.mark.parametrize(
    ("model", "words"),
    [("answers_nan", "3 of 3 answers were faults"), ("fails", "3 of 3 answers were faults"), ("hangs", "ended once")],
)
def test_a_model_that_fails_on_what_people_ask_is_rolled_back_and_the_version_before_answers(
    controller: FakeController, agent: AgentProcess, model: str, words: str
) -> None:
    first = good(controller, agent)
    bad = under_watch(controller, agent, getattr(broken_models, model)())
    for _ in range(3):
        controller.ask(agent.name, bad, broken_models.PROVOKING)
    assert words in controller.state(bad, "failed").reason
    record = controller.swap(bad)
    assert (record.outcome, record.who) == ("rolled_back", "user")
    assert record.watch is not None
    assert record.watch.faults == 3 or record.watch.crashes == 1
    controller.forget()
    assert controller.infer(agent.name, first, ROW).version == 1


def test_a_model_that_crashes_while_it_is_loaded_costs_its_worker_and_nothing_else(
    controller: FakeController, agent: AgentProcess
) -> None:
    first = good(controller, agent)
    sound, crashing = broken_models.hangs(), broken_models.crashes_loading()
    like = watched(sound, 2)
    fields = {name: getattr(like, name) for name in like.__struct_fields__}
    described = Manifest(**{**fields, "files": {**like.files, "model": builders.file_ref(crashing)}})
    bad = controller.release(crashing, golden=builders.golden_for(sound), manifest_=described)
    controller.desire(agent.name, bad)
    assert "SIGSEGV" in controller.state(bad, "refused").reason
    assert controller.infer(agent.name, first, ROW).version == 1


def test_a_slow_model_is_rolled_back_by_the_p95_that_its_manifest_allows(
    controller: FakeController, agent: AgentProcess
) -> None:
    good(controller, agent)
    slow = under_watch(controller, agent, builders.slow(40), p95_ms=0.5)
    ask(controller, agent, slow, {"x": np.ones((1, 32, 32, 32), np.int8)}, 20)
    assert "took over 0.50 ms a row" in controller.state(slow, "failed").reason


def test_a_model_that_answers_other_classes_than_before_is_rolled_back(
    controller: FakeController, agent: AgentProcess
) -> None:
    draw = np.random.default_rng(3)
    rows = draw.uniform(-2, 2, (200, builders.FEATURES)).astype(np.float32)
    first = good(controller, agent)
    for row in rows[:60]:
        assert controller.infer(agent.name, first, {"x": row[None]}).fault is None
    # A bias towards one class; its golden sets hold what it answers itself.
    weights = draw.normal(size=(builders.CLASSES, builders.FEATURES))
    stubborn = builders.dense(weights * 0.05, np.array([9.0, 0, 0, 0]))
    bad = under_watch(controller, agent, stubborn)
    for row in rows[60:120]:
        controller.infer(agent.name, bad, {"x": row[None]})
    assert "other classes" in controller.state(bad, "failed").reason
    watch = controller.swap(bad).watch
    assert watch is not None
    assert watch.drift is not None
    assert watch.drift > 0.4


def test_a_sound_version_stays_after_the_answers_that_its_manifest_names(
    controller: FakeController, agent: AgentProcess
) -> None:
    first = good(controller, agent)
    ask(controller, agent, first, ROW, 25)
    second = under_watch(controller, agent, builders.classifier(2), answers=25)
    ask(controller, agent, second, ROW, 25)
    controller.state(second, "serving")
    record = controller.swap(second)
    assert record.watch is not None
    assert (record.watch.answers, record.watch.faults, record.watch.drift) == (25, 0, 0.0)
    assert record.memory_peak_mb > 2
    assert record.who == ""


def test_a_rolled_back_version_stays_away_until_a_generation_names_it_anew(
    controller: FakeController, agent: AgentProcess
) -> None:
    first = good(controller, agent)
    bad = under_watch(controller, agent, broken_models.fails())
    controller.publish(topics.agent(agent.name, "desired"), b"", retain=True)
    for _ in range(3):
        controller.ask(agent.name, bad, broken_models.PROVOKING)
    controller.state(bad, "failed")
    agent.kill()
    controller.forget()
    agent.start()  # Without a word from the controller.
    controller.state(first, "serving")
    controller.desire(agent.name, bad, generation=controller.generation)
    other = controller.release(builders.classifier(3), model="other")
    controller.desire(agent.name, bad, other)  # A new generation that changes something else.
    controller.state(other, "watching")
    assert "while watched" in controller.state(bad, "failed").reason
    assert controller.infer(agent.name, first, ROW).version == 1
    controller.desire(agent.name, first, other)
    controller.forget()
    controller.desire(agent.name, bad, other)
    controller.state(bad, "watching")


def test_a_killed_fork_parent_costs_no_request_and_the_model_serves_on(
    controller: FakeController, agent: AgentProcess
) -> None:
    first = good(controller, agent)
    controller.wait(Hello, lambda h: h.agent == agent.name, "hello")
    (zygote,) = agent.process.children()
    os.kill(zygote.pid, signal.SIGKILL)
    assert controller.infer(agent.name, first, ROW).fault is None
    until(lambda: len(agent.workers()) == 1, "one worker, of a new fork parent")
