"""Requests over MQTT with mosquitto's own tools and TLS, as the guide has them: the answer comes to one name alone."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agent.contract import children, topics
from tests import builders
from tests.system import cli
from tests.system.lan import LanWorld

pytestmark = pytest.mark.debian
X = np.linspace(-1, 1, 16, dtype=np.float32).reshape(1, 16)
TENSOR = {"name": "x", "shape": [1, 16], "datatype": "FP32"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LanWorld]:
    with LanWorld(tmp_path_factory.mktemp("world")) as world:
        world.add_agent("one")
        world.roll_out("toy", world.bring("toy", builders.classifier()))
        for name in ("me", "hand", "spy"):
            added = cli.lepta(world.data, "client", "add", name, "--out", str(world.folder / name))
            assert added.returncode == 0, added.stderr
        yield world


class Tool:
    """A program of mosquitto's, with the options that `lepta client add --out` wrote for `who`."""

    def __init__(self, world: LanWorld, who: str, *command: str) -> None:
        options = children.environment({"XDG_CONFIG_HOME": str(world.folder / who)})
        self.process = subprocess.Popen(command, env=options, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def out(self) -> bytes:
        out, err = self.process.communicate(timeout=20)
        assert not err, err
        return out

    def __enter__(self) -> Tool:
        time.sleep(0.5)  # Its subscription needs a moment, and it says nothing when it has it.
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.mark.parametrize("encoding", [msgspec.json, msgspec.msgpack], ids=["json", "msgpack"])
def test_the_answer_comes_to_the_client_that_the_request_names_and_nobody_else_hears_of_it(
    world: LanWorld, tmp_path: Path, encoding: Any
) -> None:
    data = X.ravel().tolist() if encoding is msgspec.json else X.tobytes()
    request = tmp_path / "request"
    request.write_bytes(encoding.encode({"client": "me", "id": "q1", "inputs": [{**TENSOR, "data": data}]}))
    where, answers = topics.model_infer("toy"), topics.client_answer("me")
    everything = ("-t", "#", "-t", answers, "-t", where)
    with (
        Tool(world, "spy", "mosquitto_sub", "-v", *everything, "-W", "6") as spy,
        Tool(world, "me", "mosquitto_sub", "-N", "-t", answers, "-C", "1") as me,
    ):
        assert Tool(world, "hand", "mosquitto_pub", "-q", "1", "-t", where, "-f", str(request)).out() == b""
        answer = encoding.decode(me.out())
        out, _ = spy.process.communicate(timeout=20)
    assert out == b""
    assert (answer["id"], answer["parameters"]["device"]) == ("q1", "one")
    [scores] = answer["outputs"]
    found = np.frombuffer(scores["data"], np.float32) if encoding is msgspec.msgpack else np.array(scores["data"])
    assert np.allclose(found, next(iter(world.client.infer("toy", {"x": X}).outputs.values())).ravel())
