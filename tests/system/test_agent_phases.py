"""The two phases that only some swaps have: a shadow beside what serves, and a window where memory is too little."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agent.contract.manifest import Limits, Manifest, Shadow, Watch
from agent.contract.messages import Answer, DesiredModel, Reported
from tests import broken_models, builders
from tests.fake_controller import AgentProcess, FakeController, until

ROWS = np.random.default_rng(5).uniform(-2, 2, (400, 1, builders.FEATURES)).astype(np.float32)
CONFIG = "[limits]\nwatch_s = 0.15\nretry_first = 30\ncompute = 2\nmemory_reserve_mb = 0\n"
SMALL = CONFIG + "[simulate]\nfree_memory_mb = 96\n"
ONE_VERSION = Limits(memory_mb=100)
"""More than is free, less than when the old worker leaves. A worker's share (PSS) is 10 to 32 MB, by who else on this
machine runs of the same files: it stays within the limit, and gives back what is missing, either way."""


@pytest.fixture
def agent(tmp_path: Path, controller: FakeController, request: pytest.FixtureRequest) -> Iterator[AgentProcess]:
    name = f"edge-{abs(hash(request.node.nodeid)) & 0xFFFFFF:x}"
    with AgentProcess(tmp_path, controller, name, getattr(request, "param", CONFIG)) as agent:
        yield agent


class Stream:
    """Requests, one after the other, until it is left."""

    def __init__(self, controller: FakeController, agent: AgentProcess, wanted: DesiredModel) -> None:
        self._controller, self._agent, self._wanted = controller, agent, wanted
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.asked: list[str] = []

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(0.01):
            self.asked.append(self._controller.ask(self._agent.name, self._wanted, {"x": ROWS[number % len(ROWS)]}))
            number += 1

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def described(content: bytes, golden: tuple[bytes, bytes] | None = None, **more: Any) -> Manifest:
    manifest = builders.manifest_for(content, golden or builders.golden_for(content), version=2, sequence=2)
    return msgspec.structs.replace(manifest, **more)


def test_a_candidate_that_agrees_with_what_serves_takes_over_after_its_shadow(
    controller: FakeController, agent: AgentProcess
) -> None:
    first = controller.serve(agent.name, builders.classifier(1))
    content = builders.classifier(2)
    second = controller.release(content, manifest_=described(content, shadow=Shadow(requests=100)))
    with Stream(controller, agent, first) as stream:
        controller.desire(agent.name, second)
        controller.state(second, "serving")
    shadow = controller.swap(second).shadow
    assert shadow is not None
    assert shadow.compared >= 10
    assert shadow.agreed >= 0.9 * shadow.compared
    until(lambda: len(controller.heard(Answer)) >= len(stream.asked), "every request is answered")
    answers = controller.heard(Answer)
    assert len({a.request for a in answers}) == len(answers), "copies are answered to nobody"
    assert not [a.fault for a in answers if a.fault]


def test_a_candidate_that_answers_otherwise_is_refused_by_its_shadow_within_a_few_requests(
    controller: FakeController, agent: AgentProcess
) -> None:
    """Its golden sets hold what it answers itself, so that only live requests can tell."""
    first = controller.serve(agent.name, builders.classifier(1))
    content = builders.classifier(wrong=True)
    bad = controller.release(content, manifest_=described(content, shadow=Shadow(requests=500)))
    with Stream(controller, agent, first):
        controller.desire(agent.name, bad)
        assert "as a shadow it agrees" in controller.state(bad, "refused").reason
    shadow = controller.swap(bad).shadow
    assert shadow is not None
    assert shadow.compared < 40
    assert controller.infer(agent.name, first, {"x": ROWS[0]}).version == 1
    until(lambda: len(agent.workers()) == 1, "the candidate is gone")


def test_a_rollout_may_ask_for_a_shadow_and_a_watch_that_the_manifest_does_not(
    controller: FakeController, agent: AgentProcess
) -> None:
    first = controller.serve(agent.name, builders.classifier(1))
    plain = controller.release(builders.classifier(2), version=2)
    second = msgspec.structs.replace(plain, shadow=Shadow(requests=50), watch=Watch(answers=40, seconds=20.0))
    with Stream(controller, agent, first):
        controller.desire(agent.name, second)
        controller.state(second, "serving")
    record = controller.swap(second)
    assert record.shadow is not None
    assert record.shadow.compared >= 10
    assert record.watch is not None
    assert record.watch.answers == 40


def test_a_shadow_that_hangs_is_ended_and_nobody_waits_for_it(controller: FakeController, agent: AgentProcess) -> None:
    sound = controller.serve(agent.name, broken_models.answers_nan())
    content = broken_models.hangs()
    bad = controller.release(content, manifest_=described(content, shadow=Shadow(requests=50)))
    controller.desire(agent.name, bad)
    until(lambda: len(agent.workers()) == 2, "the candidate")
    until(lambda: _answers(controller, agent, sound) and _failed(controller, bad), "the shadow is ended")
    assert "as a shadow it answered nothing" in controller.state(bad, "failed").reason
    assert controller.infer(agent.name, sound, broken_models.GENTLE).version == 1


def _answers(controller: FakeController, agent: AgentProcess, sound: DesiredModel) -> bool:
    """Something on which the shadow hangs; what serves answers it at once."""
    began = time.monotonic()
    assert controller.infer(agent.name, sound, broken_models.PROVOKING).fault is None
    assert time.monotonic() - began < 1
    return True


def _failed(controller: FakeController, bad: DesiredModel) -> bool:
    return any(m.manifest == bad.manifest and m.state == "failed" for r in controller.heard(Reported) for m in r.models)


def test_a_shadow_that_nobody_asks_anything_ends_after_its_time_and_the_probe_decides(
    controller: FakeController, agent: AgentProcess
) -> None:
    controller.serve(agent.name, builders.classifier(1))
    content = builders.classifier(2)
    second = controller.release(content, manifest_=described(content, shadow=Shadow(requests=9, seconds=0.3)))
    controller.desire(agent.name, second)
    controller.state(second, "serving")
    shadow = controller.swap(second).shadow
    assert shadow is not None
    assert shadow.compared == 0


@pytest.mark.parametrize("agent", [SMALL], indirect=True)
def test_with_memory_for_one_version_the_old_one_leaves_first_and_requests_wait_for_the_new_one(
    controller: FakeController, agent: AgentProcess
) -> None:
    first = controller.serve(agent.name, builders.classifier(1))
    content = builders.classifier(2)
    second = controller.release(content, manifest_=described(content, limits=ONE_VERSION))
    controller.forget()
    with Stream(controller, agent, first) as stream:
        controller.desire(agent.name, second)
        away = controller.state(first, "staging")
        controller.state(second, "serving")
    assert "make room" in away.reason
    record = controller.swap(second)
    assert (record.outcome, record.alone, record.from_version) == ("committed", True, 1)
    assert record.gap_ms > 0
    until(lambda: len(controller.heard(Answer)) >= len(stream.asked), "every request is answered")
    assert not [a.fault for a in controller.heard(Answer) if a.fault]


@pytest.mark.parametrize("agent", [SMALL], indirect=True)
def test_if_the_version_for_which_the_old_one_left_is_no_good_the_old_one_is_loaded_again(
    controller: FakeController, agent: AgentProcess
) -> None:
    first = controller.serve(agent.name, builders.classifier(1))
    content = builders.classifier(wrong=True)
    golden = (builders.golden_for(content)[0], builders.golden_for(builders.classifier(1))[1])
    manifest = described(content, golden, limits=ONE_VERSION)
    bad = controller.release(content, golden=golden, manifest_=manifest)
    with Stream(controller, agent, first) as stream:
        controller.desire(agent.name, bad)
        assert "acceptance set" in controller.state(bad, "refused").reason
        record = controller.swap(bad)
    assert (record.outcome, record.alone) == ("refused", True)
    assert record.gap_ms > 0
    until(lambda: len(controller.heard(Answer)) >= len(stream.asked), "every request is answered")
    assert {a.version for a in controller.heard(Answer)} == {1}
    assert not [a.fault for a in controller.heard(Answer) if a.fault]


@pytest.mark.parametrize("agent", [SMALL], indirect=True)
def test_a_version_for_which_there_is_no_room_at_all_is_turned_down_with_the_figure(
    controller: FakeController, agent: AgentProcess
) -> None:
    first = controller.serve(agent.name, builders.classifier(1))
    content = builders.classifier(2)
    large = controller.release(content, manifest_=described(content, limits=Limits(memory_mb=2000)))
    controller.desire(agent.name, large)
    assert "too little memory is free here: it needs about 2000 MB" in controller.state(large, "failed").reason
    assert controller.infer(agent.name, first, {"x": ROWS[0]}).version == 1


@pytest.mark.parametrize("agent", [SMALL], indirect=True)
def test_an_agent_that_is_killed_in_the_window_finishes_the_swap_after_its_restart(
    controller: FakeController, agent: AgentProcess
) -> None:
    first = controller.serve(agent.name, builders.classifier(1))
    content = builders.classifier(2)
    second = controller.release(content, manifest_=described(content, limits=ONE_VERSION))
    controller.forget()
    controller.desire(agent.name, second)
    controller.state(first, "staging")
    agent.kill()
    assert agent.no_children_left()
    controller.forget()
    agent.start()
    controller.state(second, "serving")
    assert controller.infer(agent.name, second, {"x": ROWS[0]}).version == 2
