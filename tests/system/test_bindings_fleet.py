"""Bindings and users' requests over MQTT, with a real controller, real agents and both brokers."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agent.contract import topics
from agent.link import Broker
from agent.runtime import load
from controller.client.rest import ApiError
from tests import builders, streams
from tests.benchmarks.program import Program as ProcessProgram
from tests.streams import Program
from tests.system.lan import LanWorld, Login
from tests.system.world import World
from tests.waiting import until

READS = topics.predictions("+", "+")
NUMBERS = {"name": "numbers", "model": "toy", "topic": "plant/{device}/numbers", "format": "json", "rate": 0}

ROW = msgspec.json.encode([0.5] * 16)


@pytest.fixture(params=["embedded", pytest.param("mosquitto", marks=pytest.mark.debian)])
def fleet(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    with World(tmp_path, ["--broker", request.param]) as fleet:
        yield fleet


def user_of(fleet: World, *filters: str) -> Program:
    access = fleet.client.broker()
    return Program(Broker(access.host, access.port, access.username or "", access.password or ""), *filters)


def end(program: ProcessProgram) -> None:
    """Without a word to anybody."""
    program.process.kill()
    program.process.wait()


def states(fleet: World, name: str) -> dict[str, str]:
    return {s.device: s.state for b in fleet.client.bindings() if b.name == name for s in b.states}


def test_devices_read_what_is_bound_until_it_is_removed_and_the_controller_counts_it(fleet: World) -> None:
    for name in ("one", "two"):
        fleet.add_agent(name)
    fleet.roll_out("toy", fleet.bring("toy", builders.classifier()))
    made = fleet.client.add_binding(NUMBERS)
    assert [state.device for state in made.states] == ["one", "two"]
    assert until(lambda: states(fleet, "numbers") == {"one": "active", "two": "active"})
    row = builders.random_inputs(load(builders.classifier(), runtimes=builders.RUNTIMES), 1)["x"]
    expected = next(iter(fleet.client.infer("toy", {"x": row}).outputs.values()))[0]
    with user_of(fleet, READS) as user:
        for name in ("one", "two"):
            user.publish_json(f"plant/{name}/numbers", row.tolist())
        assert until(lambda: len(user.predictions("toy")) == 2)
        assert all(np.allclose(found.scores, expected) for found in user.predictions())
        assert {topic for topic, _ in user.heard()} == {topics.predictions("toy", name) for name in ("one", "two")}
        assert until(lambda: [s.predicted for s in fleet.client.bindings()[0].states] == [1, 1])
        fleet.client.remove_binding("numbers")
        generation = fleet.client.device("one").desired_generation
        assert until(lambda: fleet.client.device("one").reported_generation == generation)
        user.forget()
        user.publish_json("plant/one/numbers", row.tolist())
        user.publish_json("plant/one/numbers", row.tolist(), qos=1)
        fleet.client.infer("toy", {"x": row})
        assert not user.predictions()


def test_a_binding_survives_controller_and_agent_and_follows_a_swap(fleet: World) -> None:
    fleet.add_agent("one")
    fleet.roll_out("toy", fleet.bring("toy", builders.classifier(1)))
    fleet.client.add_binding({**NUMBERS, "devices": ["one"]})
    end(fleet.controller)
    fleet.restart_controller()
    assert until(lambda: fleet.client.device("one").online)
    assert [binding.name for binding in fleet.client.bindings()] == ["numbers"]
    end(fleet.agents["one"])
    fleet.start_agent("one")
    with user_of(fleet, READS) as user:

        def ask() -> None:
            user.publish_json("plant/one/numbers", [0.5] * 16, qos=1)

        assert user.prediction(lambda p: p.version == 1, ask).binding == "numbers"
        fleet.roll_out("toy", fleet.bring("toy", builders.classifier(2)))
        assert user.prediction(lambda p: p.version == 2, ask).binding == "numbers"


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({"topic": "lepta/v1/agents/one/cmd"}, 400, "Lepta's own"),
        ({"topic": "plant/#"}, 400, "name one topic"),
        ({"format": "pcm"}, 400, "sample rate, window and hop"),
        ({"format": "smell"}, 422, "format"),
        ({"topic": topics.predictions("toy", "one")}, 400, "without an end"),
        ({"devices": ["nobody"]}, 404, "no device"),
        ({"name": "taken"}, 409, "exists"),
        ({"name": "back", "topic": "lepta/v1/predictions/last/{device}"}, 400, "toy -> middle -> last -> toy"),
    ],
)
def test_what_cannot_be_bound_is_refused_with_what_to_change(
    shared: World, changes: dict[str, Any], status: int, says: str
) -> None:
    with pytest.raises(ApiError) as caught:
        shared.client.add_binding({**NUMBERS, **changes})
    assert says in str(caught.value) or says in str(caught.value.hint)
    answer = shared.http.post("/api/v1/bindings", json={**NUMBERS, **changes})
    assert answer.status_code == status


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("shared")) as world:
        world.add_agent("one")
        chain = {"format": "json", "topic": "lepta/v1/predictions/toy/{device}"}
        world.client.add_binding({**NUMBERS, "name": "taken"})
        world.client.add_binding({"name": "a", "model": "middle", **chain})
        last = {**chain, "topic": "lepta/v1/predictions/middle/{device}"}
        world.client.add_binding({"name": "b", "model": "last", **last})
        yield world


def test_a_user_is_answered_in_the_encoding_in_which_he_asked(fleet: World) -> None:
    fleet.add_agent("one")
    fleet.roll_out("toy", fleet.bring("toy", builders.classifier()))
    x = builders.random_inputs(load(builders.classifier(), runtimes=builders.RUNTIMES), 2)["x"]
    expected = next(iter(fleet.client.infer("toy", {"x": x}).outputs.values()))
    tensor = {"name": "x", "shape": [2, 16], "datatype": "FP32"}
    numbers, raw = {**tensor, "data": x.ravel().tolist()}, {**tensor, "data": x.tobytes()}
    asked = {
        "json": (msgspec.json, {"inputs": [numbers]}),
        "raw": (msgspec.msgpack, {"inputs": [raw]}),
        "short": (msgspec.msgpack, {"inputs": [{**raw, "data": b"1234"}]}),
        "kind": (msgspec.json, {"inputs": [{**numbers, "datatype": "FP7"}]}),
        "other": (msgspec.msgpack, {"inputs": [{**raw, "name": "y"}]}),
    }
    with user_of(fleet, topics.client_answer("me")) as me, user_of(fleet, f"{topics.ROOT}/clients/#") as onlooker:
        for id_, (encoding, body) in asked.items():
            me.publish(topics.model_infer("toy"), encoding.encode({"client": "me", "id": id_, **body}), qos=1)
        me.publish(topics.model_infer("none"), msgspec.msgpack.encode({"client": "me", "id": "none", "inputs": [raw]}))
        assert until(lambda: len(me.heard()) == 6), me.heard()
        assert until(lambda: len(onlooker.heard()) == 6)
        assert {topic for topic, _ in onlooker.heard()} == {topics.client_answer("me")}
        answers = {answer["id"]: answer for answer in map(_decoded, me.heard())}
    [found] = answers["json"]["outputs"]
    assert np.allclose(np.reshape(found["data"], found["shape"]), expected)
    [found] = answers["raw"]["outputs"]
    assert np.allclose(np.frombuffer(found["data"], np.float32).reshape(found["shape"]), expected)
    assert (found["datatype"], answers["raw"]["parameters"]["device"]) == ("FP32", "one")
    for id_, why in (("short", "needs 128 bytes"), ("kind", "FP7"), ("other", "wants x"), ("none", "no model")):
        assert why in answers[id_]["error"]
        assert answers[id_]["who"] == "user"


def _decoded(heard: tuple[str, bytes]) -> dict[str, Any]:
    payload = heard[1]
    answer: dict[str, Any] = (msgspec.json if payload[:1] == b"{" else msgspec.msgpack).decode(payload)
    return answer


@pytest.mark.debian
def test_over_tls_programs_and_devices_may_use_what_is_bound_and_nothing_beside_it(tmp_path: Path) -> None:
    with LanWorld(tmp_path) as world:
        world.add_agent("one")
        world.roll_out("toy", world.bring("toy", builders.classifier()))
        world.client.add_binding({**NUMBERS, "devices": ["one"]})
        sensor = world.client.add_client("sensor", [], ["plant/one/numbers"])
        reader = world.client.add_client("reader", ["toy"])
        stranger = world.client.add_client("stranger")
        with pytest.raises(ApiError, match="topic of your own"):
            world.client.add_client("thief", [], [topics.predictions("toy", "one")])
        context = ssl.create_default_context(cafile=world.ca)

        def login(made: Any) -> Login:
            return Login(world.clients_port, context, user=(made.name, made.password))

        with login(sensor) as writes, login(reader) as reads, login(stranger) as sees:
            for program in (reads, sees):
                program.subscribe(topics.predictions("toy", "+"))
                program.subscribe("plant/#")

            asked: list[int] = []

            def ask() -> bool:
                writes.publish("plant/one/numbers", ROW)
                asked.append(1)
                return bool(reads.seen)

            assert until(lambda: states(world, "numbers") == {"one": "active"})
            assert until(ask)
            assert {topic for topic, _ in reads.seen} == {topics.predictions("toy", "one")}
            assert until(lambda: received(world) == len(asked))
            for _ in range(5):
                sees.publish("plant/one/numbers", ROW)
            ask()
            assert until(lambda: received(world) == len(asked)), "what a stranger says is not delivered"
            assert not sees.seen
        with world.join("spy").connect() as spy, login(sensor) as writes, login(reader) as reads:
            for topic in ("plant/one/numbers", topics.predictions("toy", "one"), topics.client_answer("sensor")):
                spy.subscribe(topic)
            reads.subscribe(topics.predictions("toy", "one"))
            writes.publish("plant/one/numbers", ROW)
            assert until(lambda: reads.seen)
            assert not spy.seen, "a device reads what is bound for it alone"


def received(world: World) -> int:
    return world.client.bindings()[0].states[0].received


def test_pictures_and_sound_go_through_a_whole_fleet(fleet: World) -> None:
    fleet.add_agent("one")
    fleet.roll_out("keyword", fleet.bring("keyword", streams.words()))
    fleet.roll_out("intent", fleet.bring("intent", streams.intents()))
    fleet.roll_out("corners", fleet.bring("corners", streams.corners()))
    how, audio = msgspec.to_builtins(streams.PICTURE), msgspec.to_builtins(streams.AUDIO) | {"coefficients": 1}
    for binding in (
        {"name": "eye", "model": "corners", "topic": "eye", "format": "image", "preprocessing": how, "rate": 0},
        {"name": "ear", "model": "keyword", "topic": "ear", "format": "pcm", "audio": audio, "rate": 0, "keep": 16},
        {"name": "mind", "model": "intent", "topic": "lepta/v1/predictions/keyword/{device}", "format": "json"},
    ):
        fleet.client.add_binding(binding)
        assert until(lambda name=binding["name"]: states(fleet, name) == {"one": "active"})  # type: ignore[misc]
    with user_of(fleet, READS) as user:
        user.publish("eye", streams.picture(3), qos=1)
        assert user.prediction(lambda p: p.binding == "eye").top[0].number == 3
        user.publish("ear", streams.tone(2, 3 * 1024), qos=1)
        assert user.prediction(lambda p: p.binding == "ear").label == "2"
        assert user.prediction(lambda p: p.binding == "mind").label == "1"
