"""A device whose clock lies or jumps: what serves goes on, leases go by the other clock, no refusal is for good."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from agent.contract.messages import Answer, DesiredModel, Reported, Result
from tests import builders
from tests.fake_controller import AgentProcess, FakeController, until

DAY = 86400.0
ROW = {"x": np.linspace(-2, 2, builders.FEATURES, dtype=np.float32).reshape(1, -1)}
_CONFIG = "[limits]\nwatch_s = 0.15\nretry_first = 0.1\nretry_most = 0.3\nload_idle = 0.5\n"
_SLOW = f"{_CONFIG}[simulate]\nextra_ms_per_row = 150\n"


class Wrong:
    """A running agent and its clock, `offset` seconds before or behind this machine's."""

    def __init__(self, agent: AgentProcess, file: Path) -> None:
        self.agent = agent
        self._file = file
        self.jump(0.0)

    def jump(self, offset: float) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(str(offset), encoding="ascii")
        fresh.replace(self._file)

    def start(self) -> None:
        self.agent.start(LEPTA_CLOCK_OFFSET_S=str(self._file))


@pytest.fixture
def wrong(tmp_path: Path, controller: FakeController, request: pytest.FixtureRequest) -> Iterator[Wrong]:
    """Not started yet."""
    name = f"edge-{abs(hash(request.node.nodeid)) & 0xFFFFFF:x}"
    agent = AgentProcess(tmp_path, controller, name, getattr(request, "param", _CONFIG))
    try:
        yield Wrong(agent, tmp_path / "offset")
    finally:
        agent.__exit__(None, None, None)


def _ends_in(controller: FakeController, version: int, seconds: float) -> DesiredModel:
    return controller.release(builders.classifier(version), version=version, expires_at=int(time.time() + seconds))


def _serve(controller: FakeController, wrong: Wrong, wanted: DesiredModel) -> None:
    controller.desire(wrong.agent.name, wanted)
    controller.state(wanted, "serving")


def test_a_device_that_boots_in_1970_installs_serves_computes_leases_and_goes_on_once_its_clock_is_set(
    controller: FakeController, wrong: Wrong
) -> None:
    wrong.jump(60.0 - time.time())
    wrong.start()
    first, second = _ends_in(controller, 1, DAY), _ends_in(controller, 2, DAY)
    _serve(controller, wrong, first)
    controller.lease(wrong.agent.name, first, ROW, job="in-1970")
    assert controller.result(job="in-1970").fault is None
    wrong.jump(0.0)
    assert controller.infer(wrong.agent.name, first, ROW).version == 1
    _serve(controller, wrong, second)
    assert controller.infer(wrong.agent.name, second, ROW).version == 2


def test_in_1970_only_what_certainly_has_passed_is_over(controller: FakeController, wrong: Wrong) -> None:
    wrong.jump(60.0 - time.time())
    wrong.start()
    before_this_program = controller.release(builders.classifier(1), expires_at=1_000_000_000)
    controller.desire(wrong.agent.name, before_this_program)
    assert controller.state(before_this_program, "refused").cause == "expired"
    over_by_the_right_clock = _ends_in(controller, 2, -60.0)
    _serve(controller, wrong, over_by_the_right_clock)


@pytest.mark.parametrize("jump", [DAY, -DAY])
@pytest.mark.parametrize("wrong", [_SLOW], indirect=True)
def test_requests_and_leases_that_are_held_while_the_clock_jumps_a_day_are_answered_once(
    controller: FakeController, wrong: Wrong, jump: float
) -> None:
    wrong.start()
    wanted = _ends_in(controller, 1, DAY / 2)
    _serve(controller, wrong, wanted)
    rows = {"x": np.repeat(ROW["x"], 4, axis=0)}
    controller.lease(wrong.agent.name, wanted, rows, job="held", ttl_ms=20_000.0)
    asked = [controller.ask(wrong.agent.name, wanted, ROW) for _ in range(3)]
    wrong.jump(jump)
    late = controller.ask(wrong.agent.name, wanted, ROW)
    for request in (*asked, late):
        assert controller.wait(Answer, lambda a, r=request: a.request == r, "every answer").fault is None  # type: ignore[misc]
    assert controller.result(job="held").fault is None
    controller.lease(wrong.agent.name, wanted, ROW, job="after", ttl_ms=20_000.0)
    assert controller.result(job="after").fault is None
    assert len([r for r in controller.heard(Result) if r.job == "held"]) == 1


@pytest.mark.parametrize("wrong", [_SLOW], indirect=True)
def test_a_deadline_runs_out_as_told_though_the_clock_was_set_back_a_day(
    controller: FakeController, wrong: Wrong
) -> None:
    wrong.start()
    wanted = _ends_in(controller, 1, DAY)
    _serve(controller, wrong, wanted)
    patient = [controller.ask(wrong.agent.name, wanted, ROW) for _ in range(4)]
    hasty = controller.ask(wrong.agent.name, wanted, ROW, ttl_ms=20.0)
    wrong.jump(-DAY)
    last = controller.ask(wrong.agent.name, wanted, ROW)
    controller.wait(Answer, lambda a: a.request == last, "the last answer")
    answered = {a.request for a in controller.heard(Answer)}
    assert hasty not in answered
    assert answered >= set(patient)


def test_a_day_ahead_what_serves_goes_on_and_what_is_over_there_is_installed_once_the_clock_is_right_again(
    controller: FakeController, wrong: Wrong
) -> None:
    wrong.start()
    first, second = _ends_in(controller, 1, DAY / 2), _ends_in(controller, 2, DAY / 2)
    _serve(controller, wrong, first)
    wrong.jump(DAY)
    controller.desire(wrong.agent.name, second)
    assert "set this device's clock" in controller.state(second, "refused").reason
    assert controller.infer(wrong.agent.name, first, ROW).version == 1
    # Over by now as well, and still the one that serves after a restart; the refusal is remembered, too.
    assert wrong.agent.stop() == 0
    controller.forget()
    wrong.start()
    controller.state(first, "serving")
    controller.state(second, "refused")
    assert controller.infer(wrong.agent.name, first, ROW).version == 1
    wrong.jump(0.0)
    controller.state(second, "serving")
    assert controller.infer(wrong.agent.name, second, ROW).version == 2


def test_a_time_that_is_really_over_is_refused_once_however_often_it_is_looked_at(
    controller: FakeController, wrong: Wrong
) -> None:
    wrong.start()
    first, second = _ends_in(controller, 1, DAY), _ends_in(controller, 2, -60.0)
    _serve(controller, wrong, first)
    controller.desire(wrong.agent.name, second)
    controller.swap(second)
    passed = time.monotonic() + 1.0
    until(lambda: time.monotonic() > passed, "several looks")
    told = [r.swap for r in controller.heard(Reported) if r.swap is not None and r.swap.to_artifact == second.artifact]
    assert len(told) == 1
