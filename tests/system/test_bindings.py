"""Bindings on a real agent with real workers and the embedded broker; a test speaks as the controller and as users."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agent.contract import topics
from agent.contract.bindings import Binding, BindingState
from agent.contract.messages import DesiredModel, Load, Reported
from tests import builders, streams
from tests.fake_controller import AgentProcess, FakeBroker, FakeController, until
from tests.streams import Program

READS = topics.predictions("+", "+")
SCORES = Binding(name="numbers", model="digits", topic="plant/numbers", format="json", rate=0)


@pytest.fixture
def agent(tmp_path: Path, controller: FakeController, request: pytest.FixtureRequest) -> Iterator[AgentProcess]:
    name = f"edge-{abs(hash(request.node.nodeid)) & 0xFFFFFF:x}"
    with AgentProcess(tmp_path, controller, name) as agent:
        yield agent


@pytest.fixture
def user(controller: FakeController) -> Iterator[Program]:
    with Program(controller.broker, READS) as user:
        yield user


def release(
    controller: FakeController, model: str, content: bytes, labels: tuple[str, ...] = (), version: int = 1, **more: Any
) -> DesiredModel:
    golden = builders.golden_for(content)
    manifest = builders.manifest_for(content, golden, model=model, version=version, sequence=version)
    manifest = msgspec.structs.replace(manifest, labels=labels, **more)
    return controller.release(content, golden=golden, manifest_=manifest)


def bind(controller: FakeController, agent: AgentProcess, wanted: DesiredModel, *bindings: Binding) -> None:
    """Desire a model with these bindings, and wait until they are active."""
    controller.desire(agent.name, wanted, bindings=bindings)
    for binding in bindings:
        wait_for(controller, binding.name, "active")


def wait_for(controller: FakeController, name: str, state: str) -> BindingState:
    def found(reported: Reported) -> BindingState | None:
        return next((b for b in reported.bindings if (b.name, b.state) == (name, state)), None)

    bound = found(controller.wait(Reported, lambda r: found(r) is not None, f"binding {name} being {state}"))
    assert bound is not None
    return bound


def counts(controller: FakeController, name: str) -> BindingState:
    """As the latest load sample has them."""
    none = BindingState(name=name, model="", state="waiting")
    return next((b for sample in reversed(controller.heard(Load)) for b in sample.bindings if b.name == name), none)


def test_a_picture_on_a_users_topic_is_decoded_by_the_worker_and_its_prediction_published(
    controller: FakeController, agent: AgentProcess, user: Program
) -> None:
    wanted = release(controller, "corners", streams.corners(), streams.CORNERS, preprocessing=streams.PICTURE)
    camera = Binding(name="door", model="corners", topic="doors/1/camera", format="image", rate=0, top_k=2)
    bind(controller, agent, wanted, camera)
    for corner, kind in ((0, "PNG"), (3, "JPEG"), (1, "PNG")):
        user.forget()
        user.publish(camera.topic, streams.picture(corner, kind=kind))
        found = user.prediction(lambda _: True)
        assert found.label == streams.CORNERS[corner]
        assert (found.binding, found.version, found.artifact) == ("door", 1, wanted.artifact)
        assert found.top[0].number == corner
        assert len(found.top) == 2
        assert len(found.scores) == 4
        assert found.latency_ms >= found.service_ms > 0
    user.publish(camera.topic, b"\xff\xd8 no picture")
    until(lambda: counts(controller, "door").failed == 1, "the broken picture is counted")
    assert "picture" in counts(controller, "door").reason
    user.publish(camera.topic, streams.picture(2))
    user.prediction(lambda p: p.label == streams.CORNERS[2])


def test_json_and_raw_tensors_give_what_a_request_gives(
    controller: FakeController, agent: AgentProcess, user: Program
) -> None:
    content = builders.classifier()
    wanted = release(controller, "digits", content)
    raw = Binding(name="raw", model="digits", topic="plant/raw", format="tensor", rate=0)
    bind(controller, agent, wanted, SCORES, raw)
    row = np.random.default_rng(3).uniform(-2, 2, 16).astype(np.float32)
    answer = controller.infer(agent.name, wanted, {"x": row[None]})
    expected = np.frombuffer(answer.outputs[0].data, np.float32)
    rows = {"inputs": [{"name": "x", "shape": [1, 16], "datatype": "FP32", "data": row.tolist()}]}
    for value in (row.tolist(), {"x": row.tolist()}, rows, {"binding": "b", "scores": row.tolist()}):
        user.forget()
        user.publish_json(SCORES.topic, value)
        assert np.allclose(user.prediction(lambda p: p.binding == "numbers").scores, expected)
    user.publish(raw.topic, row.tobytes())
    assert np.allclose(user.prediction(lambda p: p.binding == "raw").scores, expected)
    for payload in (b"[1, 2]", b"{", b'{"y": [1]}', b'"text"', b"[" * 5000, b"[[1], [1, 2]]"):
        user.publish(SCORES.topic, payload)
    user.publish(raw.topic, b"\0" * 3)
    until(lambda: counts(controller, "numbers").failed >= 3, "what is no input is counted")
    until(lambda: counts(controller, "raw").failed == 1, "a torn tensor is counted")
    assert controller.infer(agent.name, wanted, {"x": row[None]}).fault is None


def test_windows_of_sound_are_heard_and_a_second_model_acts_on_what_the_first_one_heard(
    controller: FakeController, agent: AgentProcess, user: Program
) -> None:
    words = release(controller, "keyword", streams.words(), streams.WORDS)
    intents = release(controller, "intent", streams.intents(), streams.INTENTS)
    chained = topics.predictions("keyword", agent.name)
    ear = Binding(
        name="ear", model="keyword", topic="rooms/1/microphone", format="pcm", audio=streams.AUDIO, rate=0, keep=16
    )
    mind = Binding(name="mind", model="intent", topic=chained, format="json", rate=0, keep=16)
    controller.desire(agent.name, words, intents, bindings=(ear, mind))
    for name in ("ear", "mind"):
        wait_for(controller, name, "active")
    for word, intent in ((0, "lights"), (2, "halt"), (1, "lights")):
        user.forget()
        sound = streams.tone(word, 4 * 1024 + 700)
        for at in range(0, len(sound), 1000):
            user.publish(ear.topic, sound[at : at + 1000])
        assert until_heard(user, "keyword", streams.WORDS[word])
        assert until_heard(user, "intent", intent)


def until_heard(user: Program, model: str, label: str) -> bool:
    """Is this the last that this model said?"""
    until(lambda: bool(said := user.predictions(model)) and said[-1].label == label, f"{model} says {label}")
    return True


def test_bindings_survive_a_kill_of_the_agent_and_a_swap_of_their_model(
    controller: FakeController, agent: AgentProcess, user: Program
) -> None:
    first = release(controller, "corners", streams.corners(), streams.CORNERS, preprocessing=streams.PICTURE)
    camera = Binding(name="door", model="corners", topic="doors/1/camera", format="image", rate=0)
    bind(controller, agent, first, camera)
    agent.kill()
    assert agent.no_children_left()
    agent.start()

    def show() -> None:
        user.publish(camera.topic, streams.picture(1))
        time.sleep(0.05)

    user.prediction(lambda p: p.version == 1, show)
    second = release(controller, "corners", streams.corners(2), streams.CORNERS, 2, preprocessing=streams.PICTURE)
    controller.desire(agent.name, second, bindings=(camera,))
    found = user.prediction(lambda p: p.version == 2, show)
    assert (found.artifact, found.label) == (second.artifact, streams.CORNERS[1])
    assert counts(controller, "door").failed == 0


def test_a_binding_survives_the_broker_and_goes_with_the_desired_state(
    broker: FakeBroker, controller: FakeController, agent: AgentProcess, user: Program
) -> None:
    wanted = release(controller, "digits", builders.classifier())
    bind(controller, agent, wanted, SCORES)
    broker.stop()
    broker.start()

    def ask() -> None:
        user.publish_json(SCORES.topic, [0.0] * 16)
        time.sleep(0.05)

    user.prediction(lambda p: p.binding == "numbers", ask)
    user.forget()
    controller.forget()
    other = msgspec.structs.replace(SCORES, name="others", topic="plant/others")
    controller.desire(agent.name, wanted, bindings=(other,))
    wait_for(controller, "others", "active")
    user.publish_json(SCORES.topic, [0.0] * 16)
    user.publish_json(other.topic, [0.0] * 16)
    user.prediction(lambda p: p.binding == "others")
    assert {p.binding for p in user.predictions()} == {"others"}


def test_a_flood_is_answered_at_the_rate_with_the_newest_and_requests_go_on(
    controller: FakeController, agent: AgentProcess, user: Program
) -> None:
    wanted = release(controller, "digits", builders.classifier())
    slow = msgspec.structs.replace(SCORES, rate=20.0, keep=2)
    bind(controller, agent, wanted, slow)
    began, sent = time.monotonic(), 0
    while time.monotonic() < began + 2.0:
        for _ in range(20):
            user.publish_json(slow.topic, [sent / 10_000] * 16)
            sent += 1
        assert controller.infer(agent.name, wanted, {"x": np.zeros((1, 16), np.float32)}).fault is None
    until(lambda: counts(controller, "numbers").received == sent, "all of the flood was seen")
    after = counts(controller, "numbers")
    took = time.monotonic() - began
    assert after.predicted <= 20.0 * took + 2
    assert after.predicted >= 20
    assert after.failed == 0
    until(lambda: _settled(controller, sent), "whatever was not predicted is counted as dropped")
    assert {p.binding for p in user.predictions()} == {"numbers"}


def _settled(controller: FakeController, sent: int) -> bool:
    bound = counts(controller, "numbers")
    return bound.predicted + bound.dropped + bound.failed == sent


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"topic": "lepta/v1/agents/other/cmd"}, "Lepta's own"),
        ({"topic": "plant/#"}, "one topic"),
        ({"format": "smell"}, "not known here"),
        ({"format": "pcm"}, "window and hop"),
        ({"topic": topics.predictions("digits", "one")}, "without an end"),
    ],
)
def test_what_a_device_cannot_read_is_refused_with_a_reason_and_the_rest_works(
    controller: FakeController, agent: AgentProcess, user: Program, changes: dict[str, str], why: str
) -> None:
    wanted = release(controller, "digits", builders.classifier())
    wrong = msgspec.structs.replace(SCORES, name="wrong", **changes)
    controller.desire(agent.name, wanted, bindings=(wrong, SCORES))
    assert why in wait_for(controller, "wrong", "refused").reason
    wait_for(controller, "numbers", "active")
    user.publish_json(SCORES.topic, [0.0] * 16)
    user.prediction(lambda p: p.binding == "numbers")


def test_a_binding_waits_while_its_model_is_not_there(
    controller: FakeController, agent: AgentProcess, user: Program
) -> None:
    wanted = release(controller, "digits", builders.classifier())
    controller.desire(agent.name, bindings=(SCORES,))
    assert "does not serve here" in wait_for(controller, "numbers", "waiting").reason
    user.publish_json(SCORES.topic, [0.0] * 16)
    until(lambda: counts(controller, "numbers").dropped == 1, "nobody could answer")
    bind(controller, agent, wanted, SCORES)
    user.publish_json(SCORES.topic, [0.0] * 16)
    user.prediction(lambda p: p.binding == "numbers")


def test_an_input_that_ends_its_worker_costs_itself_and_the_binding_goes_on(
    controller: FakeController, agent: AgentProcess, user: Program
) -> None:
    wanted = release(controller, "digits", builders.classifier())
    bind(controller, agent, wanted, SCORES)
    controller.state(wanted, "serving")
    [worker] = agent.workers()
    worker.send_signal(signal.SIGKILL)

    def ask() -> None:
        user.publish_json(SCORES.topic, [0.0] * 16)
        time.sleep(0.05)

    user.prediction(lambda p: p.binding == "numbers", ask)
