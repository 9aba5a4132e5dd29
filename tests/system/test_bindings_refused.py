"""A broker that does not let devices read what is bound: real agents, and a real mosquitto with access rules."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from agent.contract import topics
from controller.binding_replies import BoundDevice
from tests import builders
from tests.streams import Program
from tests.strict_broker import StrictBroker
from tests.system.cli import lepta
from tests.system.world import World
from tests.waiting import until

pytestmark = pytest.mark.debian
OPEN = {"name": "open", "model": "toy", "topic": "plant/open", "format": "json"}
SECRET = {"name": "secret", "model": "toy", "topic": "plant/secret/{device}", "format": "json", "rate": 0}


def states(world: World) -> dict[str, BoundDevice]:
    return {binding.name: state for binding in world.client.bindings() for state in binding.states}


def test_a_topic_that_may_not_be_read_is_told_to_the_operator_and_read_once_it_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StrictBroker(tmp_path, "plant/secret/#") as strict:
        monkeypatch.setenv("LEPTA_BROKER", strict.url)
        with World(tmp_path / "world", []) as world:
            _play(strict, world)


def _play(strict: StrictBroker, world: World) -> None:
    world.add_agent("one", limits={"resubscribe": 0.5})
    world.roll_out("toy", world.bring("toy", builders.classifier()))
    for binding in (OPEN, SECRET):
        world.client.add_binding(binding)
    assert until(lambda: {n: s.state for n, s in states(world).items()} == {"open": "active", "secret": "refused"})
    assert "Not authorized" in states(world)["secret"].reason
    assert {binding.name: binding.refused for binding in world.client.bindings()} == {"open": 0, "secret": 1}
    shown = lepta(world.data, "binding", "ls")
    assert "secret: 1 of 1 devices cannot read it" in shown.stdout + shown.stderr
    assert "Not authorized" in shown.stdout
    strict.allow()
    assert until(lambda: states(world)["secret"].state == "active")
    with Program(strict.broker, topics.predictions("toy", "one")) as user:
        user.publish("plant/secret/one", msgspec.json.encode([0.5] * 16), qos=1)
        assert user.prediction(lambda _: True).binding == "secret"
