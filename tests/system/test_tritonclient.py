"""Triton's own client, unchanged, against a real controller, and against the local endpoint of its real agent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from agent.runtime import load, predict
from tests import builders
from tests.system.lan import free_ports
from tests.system.world import World

pytestmark = pytest.mark.tritonclient
X = np.linspace(-2, 2, 48, dtype=np.float32).reshape(3, 16)
BOTH = [False, True]
[LOCAL] = free_ports(1)


class Triton:
    """The client with the key that every request of it carries; what we test is in `http`."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        from tritonclient import http

        self.http = http
        self.headers = headers
        address = httpx.URL(url)
        self.client = http.InferenceServerClient(f"{address.host}:{address.port}")

    def __getattr__(self, verb: str) -> Any:
        """A method of the client, called with the key. It writes into the headers that it is given."""
        method = getattr(self.client, verb)
        return lambda *arguments, **named: method(*arguments, headers=dict(self.headers), **named)

    def tensor(self, name: str, array: np.ndarray, *, binary: bool, datatype: str = "FP32") -> Any:
        made = self.http.InferInput(name, list(array.shape), datatype)
        made.set_data_from_numpy(array, binary_data=binary)
        return made

    def refused(self, says: str, verb: str, *arguments: Any, **named: Any) -> None:
        from tritonclient.utils import InferenceServerException

        with pytest.raises(InferenceServerException, match=says):
            getattr(self, verb)(*arguments, **named)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("triton")) as world:
        world.agent_options["one"] = ("--serve", f"127.0.0.1:{LOCAL}")
        world.add_agent("one")
        world.bring("toy", builders.classifier(1))
        world.roll_out("toy", world.bring("toy", builders.classifier(2)))
        world.roll_out("pair", world.bring("pair", builders.two_outputs()))
        yield world


def at_controller(world: World) -> Triton:
    place = world.client.place
    return Triton(place.url, {"Authorization": f"Bearer {place.token()}"})


@pytest.fixture(scope="module")
def fleet(world: World) -> Iterator[Triton]:
    made = at_controller(world)
    yield made
    made.client.close()


@pytest.fixture(scope="module", params=["controller", "device"])
def triton(world: World, request: pytest.FixtureRequest) -> Iterator[Triton]:
    made = at_controller(world) if request.param == "controller" else Triton(f"http://127.0.0.1:{LOCAL}", {})
    yield made
    made.client.close()


def wanted(x: np.ndarray = X) -> np.ndarray:
    """What a single process answers."""
    return predict(load(builders.classifier(2), runtimes=builders.RUNTIMES), {"x": x})["scores"]


@pytest.mark.parametrize("answer", BOTH, ids=["json-out", "binary-out"])
@pytest.mark.parametrize("question", BOTH, ids=["json-in", "binary-in"])
def test_json_and_binary_inputs_and_outputs_in_every_combination(triton: Triton, question: bool, answer: bool) -> None:
    sent = [triton.tensor("x", X, binary=question)]
    outputs = [triton.http.InferRequestedOutput("scores", binary_data=answer)]
    result = triton.infer("toy", sent, outputs=outputs, request_id="mine")
    assert np.array_equal(result.as_numpy("scores"), wanted())
    told = result.get_response()
    assert (told["id"], told["model_name"], told["model_version"]) == ("mine", "toy", "2")
    assert told["parameters"]["device"] == "one"
    assert ("data" in result.get_output("scores")) != answer


def test_several_inputs_and_outputs(triton: Triton) -> None:
    a, b = np.ones((2, 3), np.float32), np.arange(6, dtype=np.float32).reshape(2, 3)
    result = triton.infer("pair", [triton.tensor("b", b, binary=True), triton.tensor("a", a, binary=False)])
    assert np.array_equal(result.as_numpy("sum"), a + b)
    assert np.array_equal(result.as_numpy("product"), a * b)


@pytest.mark.parametrize("answer", [None, "gzip", "deflate"])
@pytest.mark.parametrize("question", [None, "gzip", "deflate"])
def test_compressed_bodies_both_ways(triton: Triton, question: str | None, answer: str | None) -> None:
    many = np.tile(X, (200, 1))
    result = triton.infer(
        "toy",
        [triton.tensor("x", many, binary=True)],
        request_compression_algorithm=question,
        response_compression_algorithm=answer,
    )
    assert np.array_equal(result.as_numpy("scores"), wanted(many))


def test_a_version_and_stored_numbers(triton: Triton) -> None:
    [told] = triton.get_model_metadata("toy", "2")["inputs"]
    how = told["parameters"]
    stored = np.clip(np.round(X / np.float32(how["scale"])) + how["zero_point"], -128, 127).astype(np.int8)
    sent = [triton.tensor("x", stored, binary=True, datatype=how["stored_datatype"])]
    assert np.array_equal(triton.infer("toy", sent, model_version="2").as_numpy("scores"), wanted())
    triton.refused("serves version 2", "infer", "toy", [triton.tensor("x", X, binary=True)], model_version="1")


def test_asynchronous_requests(triton: Triton) -> None:
    asked = [triton.async_infer("toy", [triton.tensor("x", X, binary=True)]) for _ in range(8)]
    assert all(np.array_equal(each.get_result().as_numpy("scores"), wanted()) for each in asked)


def test_health_and_metadata(triton: Triton) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("toy")
    assert triton.is_model_ready("toy", "2")
    assert not triton.is_model_ready("toy", "1")
    assert not triton.is_model_ready("none")
    assert {"binary_tensor_data", "statistics", "model_repository"} <= set(triton.get_server_metadata()["extensions"])
    assert triton.get_model_config("toy")["input"][0]["data_type"] == "TYPE_FP32"
    told = triton.get_model_metadata("toy")
    assert told["versions"] == ["2"]
    assert [(t["name"], t["datatype"], t["shape"]) for t in told["outputs"]] == [("scores", "FP32", [-1, 4])]


def test_statistics(triton: Triton) -> None:
    triton.infer("toy", [triton.tensor("x", X, binary=True)])
    [stats] = triton.get_inference_statistics("toy")["model_stats"]
    assert (stats["name"], stats["version"]) == ("toy", "2")
    assert stats["inference_count"] >= 3
    assert stats["inference_stats"]["success"]["count"] >= 1
    everything = triton.get_inference_statistics()["model_stats"]
    assert {"toy", "pair"} <= {each["name"] for each in everything}


def test_the_repository_is_listed_and_a_model_is_loaded_and_unloaded(world: World, fleet: Triton) -> None:
    triton = fleet
    world.client.release("comes", world.bring("comes", builders.classifier(3)))
    assert not triton.is_model_ready("comes")
    triton.load_model("comes")
    assert triton.is_model_ready("comes")
    states = {(m["name"], m["version"]): m["state"] for m in triton.get_model_repository_index()}
    assert (states["comes", "1"], states["toy", "1"], states["toy", "2"]) == ("READY", "UNAVAILABLE", "READY")
    triton.unload_model("comes")
    assert not triton.is_model_ready("comes")
    triton.refused("no model is called", "load_model", "none")


def test_refusals_reach_the_caller_in_our_words(triton: Triton) -> None:
    wrong = np.ones((1, 5), np.float32)
    triton.refused("this model wants", "infer", "toy", [triton.tensor("x", wrong, binary=True)])
    triton.refused("no model is called", "infer", "none", [triton.tensor("x", X, binary=True)])
    classes = [triton.http.InferRequestedOutput("scores", class_count=2)]
    triton.refused("/predict for labels", "infer", "toy", [triton.tensor("x", X, binary=True)], outputs=classes)
    triton.refused("nothing is (at|here)", "get_log_settings")


def test_the_controller_wants_a_key(fleet: Triton) -> None:
    key, fleet.headers = fleet.headers, {}
    try:
        fleet.refused("no API key was sent", "get_server_metadata")
    finally:
        fleet.headers = key


def test_a_device_lists_what_it_runs_and_leaves_the_choice_to_its_controller(world: World) -> None:
    device = Triton(f"http://127.0.0.1:{LOCAL}", {})
    states = {(m["name"], m["version"]): m["state"] for m in device.get_model_repository_index()}
    assert states == {("toy", "2"): "READY", ("pair", "1"): "READY"}
    device.refused("decided by its controller", "load_model", "toy")
    device.refused("decided by its controller", "unload_model", "toy")
    device.client.close()
