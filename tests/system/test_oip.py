"""The Open Inference Protocol and the friendly route, over a real controller and a real agent."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from agent.runtime import load, predict
from controller.api.errors import error_body
from tests import builders
from tests.system.world import World
from tests.waiting import until

LABELS = ["zero", "one", "two", "three"]
HOW = {"height": 4, "width": 4, "channels": 1, "scale": 1 / 64, "offset": -2.0}
X = np.linspace(-2, 2, 48, dtype=np.float32).reshape(3, 16)
HEADER = "Inference-Header-Content-Length"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """`toy` serves in version 2, of which version 1 was released too; `pair` has two inputs and two outputs."""
    with World(tmp_path_factory.mktemp("oip")) as world:
        world.add_agent("one")
        world.bring("toy", builders.classifier(1))
        world.roll_out("toy", world.bring("toy", builders.classifier(2), labels=LABELS, preprocessing=HOW))
        world.roll_out("pair", world.bring("pair", builders.two_outputs()))
        yield world


def wanted(content: bytes, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    """What a single process answers."""
    return predict(load(content, runtimes=builders.RUNTIMES), inputs)


SCORES = wanted(builders.classifier(2), x=X)["scores"]


def body(array: np.ndarray = X, name: str = "x", datatype: str = "FP32", **more: Any) -> dict[str, Any]:
    item = {"name": name, "shape": list(array.shape), "datatype": datatype, "data": array.ravel().tolist()}
    return {"inputs": [item], **more}


def scores_of(response: httpx.Response) -> np.ndarray:
    assert response.status_code == 200, response.text
    [output] = response.json()["outputs"]
    return np.array(output["data"], np.float32).reshape(output["shape"])


def refused(response: httpx.Response, status: int, says: str) -> None:
    told = response.json()
    assert response.status_code == status, told
    assert says in told["error"]
    assert set(told) == set(error_body("", "", None))


def test_an_answer_says_which_artifact_device_and_runtime_made_it_and_keeps_the_callers_id(world: World) -> None:
    answer = world.http.post("/v2/models/toy/infer", json=body(id="mine")).json()
    [serving] = world.client.device("one").models[:1]
    told = answer["parameters"]
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("toy", "2", "mine")
    assert (told["artifact"], told["device"], told["version"]) == (serving.artifact, "one", 2)
    assert told["runtime"].startswith("ai-edge-litert")
    assert world.client.model("toy").latest == 2


def test_real_numbers_are_quantized_by_the_artifacts_own_scales(world: World) -> None:
    assert np.array_equal(scores_of(world.http.post("/v2/models/toy/infer", json=body())), SCORES)
    spec = load(builders.classifier(2), runtimes=builders.RUNTIMES).inputs[0]
    assert spec.scale is not None
    between = (np.round(X / spec.scale) * spec.scale).astype(np.float32)
    for other in (between, between.astype(np.float64)):
        datatype = "FP64" if other.dtype == np.float64 else "FP32"
        answer = world.http.post("/v2/models/toy/infer", json=body(other, datatype=datatype))
        assert np.array_equal(scores_of(answer), SCORES)


def test_stored_numbers_are_taken_where_they_have_one_meaning(world: World) -> None:
    meta = world.http.get("/v2/models/toy/versions/2").json()["inputs"][0]
    how = meta["parameters"]
    assert (meta["datatype"], how["stored_datatype"]) == ("FP32", "INT8")
    stored = np.clip(np.round(X / np.float32(how["scale"])) + how["zero_point"], -128, 127).astype(np.int8)
    sent = body(stored, datatype="INT8")
    assert np.array_equal(scores_of(world.http.post("/v2/models/toy/versions/2/infer", json=sent)), SCORES)
    refused(world.http.post("/v2/models/toy/infer", json=sent), 400, "send FP32, or ask versions/N/infer")


def test_several_inputs_and_outputs_have_names(world: World) -> None:
    a, b = np.ones((2, 3), np.float32), np.arange(6, dtype=np.float32).reshape(2, 3)
    sent = {"inputs": body(b, "b")["inputs"] + body(a, "a")["inputs"]}
    both = {o["name"]: o["data"] for o in world.http.post("/v2/models/pair/infer", json=sent).json()["outputs"]}
    assert both == {"sum": (a + b).ravel().tolist(), "product": (a * b).ravel().tolist()}
    some = world.http.post("/v2/models/pair/infer", json={**sent, "outputs": [{"name": "product"}]}).json()["outputs"]
    assert [o["name"] for o in some] == ["product"]
    refused(world.http.post("/v2/models/pair/infer", json=body(a, "a")), 400, "this model wants a, b")
    twice = {"inputs": 2 * body(a, "a")["inputs"]}
    refused(world.http.post("/v2/models/pair/infer", json=twice), 400, "an input comes twice")
    meta = world.client.metadata("pair")
    assert {t.name: t.shape for t in (*meta.inputs, *meta.outputs)} == dict.fromkeys(
        ("a", "b", "sum", "product"), (-1, 3)
    )


def test_the_configuration_tells_tools_what_they_ask_for(world: World) -> None:
    told = world.http.get("/v2/models/pair/config").json()
    assert [(t["name"], t["data_type"], t["dims"]) for t in told["input"]] == [(n, "TYPE_FP32", [3]) for n in "ab"]
    assert [t["name"] for t in told["output"]] == ["sum", "product"]
    assert told["max_batch_size"] == 64 * 1024 * 1024 // 24
    assert world.http.get("/v2/models/pair/versions/1/config").json() == told


def test_a_version_in_the_path_answers_or_nobody_does(world: World) -> None:
    answer = world.http.post("/v2/models/toy/versions/2/infer", json=body())
    assert np.array_equal(scores_of(answer), SCORES)
    refused(
        world.http.post("/v2/models/toy/versions/1/infer", json=body()), 503, "toy version 1: one: serves version 2"
    )
    refused(world.http.post("/v2/models/toy/versions/9/infer", json=body()), 404, "no version toy 9")
    refused(world.http.post("/v2/models/toy/versions/new/infer", json=body()), 404, "is no number")
    assert [world.http.get(f"/v2/models/toy/versions/{v}/ready").status_code for v in (1, 2, 9)] == [503, 200, 503]
    assert world.http.get("/v2/models/toy").json()["versions"] == ["2"]
    assert world.http.get("/v2/models/toy/versions/1").json()["versions"] == ["1"]


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)])
def test_bodies_are_compressed_both_ways_where_the_caller_says_so(world: World, coding: str, pack: Any) -> None:
    many = np.tile(X, (200, 1))
    headers = {"Content-Encoding": coding, "Accept-Encoding": coding, "Content-Type": "application/json"}
    answer = world.http.post("/v2/models/toy/infer", content=pack(json.dumps(body(many)).encode()), headers=headers)
    assert np.array_equal(scores_of(answer), np.tile(SCORES, (200, 1)))
    assert answer.headers.get("Content-Encoding", "identity") == coding


def test_damaged_and_swollen_bodies_are_refused(world: World) -> None:
    whole = gzip.compress(json.dumps(body()).encode())

    def send(content: bytes, coding: str = "gzip") -> httpx.Response:
        headers = {"Content-Encoding": coding, "Content-Type": "application/json"}
        return world.http.post("/v2/models/toy/infer", content=content, headers=headers)

    refused(send(whole[:-4]), 400, "cut off")
    refused(send(whole + b"x"), 400, "follows the gzip data")
    refused(send(b"no gzip"), 400, "not gzip")
    refused(send(whole, "br"), 400, "not understood")
    refused(send(gzip.compress(bytes(80 * 1024 * 1024))), 413, "at most")


def test_every_error_of_the_protocol_has_a_body_that_says_error(world: World) -> None:
    http = world.http
    refused(http.get("/v2/nowhere"), 404, "nothing is at /v2/nowhere")
    refused(http.get("/v2/models/none"), 404, "no model is called")
    refused(http.post("/v2/models/none/infer", json=body()), 404, "no model is called")
    refused(http.get("/v2/models/toy/infer"), 405, "GET does nothing at")
    refused(http.post("/v2/repository/index", content=b"[1]"), 400, "not a request of the repository")
    refused(http.post("/v2/models/toy/infer", json=body(), headers={"Authorization": "Bearer no"}), 401, "is wrong")
    refused(http.get("/v2", headers={"Authorization": ""}), 401, "no API key")
    refused(http.post("/v2/models/toy/infer", json=body(np.ones((1, 5), np.float32))), 400, "has shape [1, 5]")
    refused(http.post("/api/v1/models/toy/predict?top=no", json=[]), 422, "top")
    asked = body(outputs=[{"name": "scores", "parameters": {"classification": 2}}])
    refused(http.post("/v2/models/toy/infer", json=asked), 400, "/predict for labels")
    assert http.get("/v2/models/toy/infer").headers["Allow"] == "POST"


def test_statistics_count_rows_successes_and_failures_by_version(world: World) -> None:
    def counted() -> dict[str, Any]:
        [stats] = world.http.get("/v2/models/toy/versions/2/stats").json()["model_stats"]
        return stats  # type: ignore[no-any-return]

    world.http.post("/v2/models/toy/infer", json=body())
    before = counted()
    for _ in range(3):
        world.http.post("/v2/models/toy/infer", json=body())
    world.http.post("/v2/models/toy/infer", json=body(np.ones((1, 5), np.float32)))
    after = counted()
    grown = {key: after[key] - before[key] for key in ("inference_count", "execution_count")}
    assert grown == {"inference_count": 9, "execution_count": 3}
    for part, more in (("success", 3), ("fail", 1), ("queue", 3), ("compute_infer", 3), ("compute_input", 3)):
        assert after["inference_stats"][part]["count"] - before["inference_stats"][part]["count"] == more, part
    assert after["inference_stats"]["success"]["ns"] > after["inference_stats"]["compute_infer"]["ns"] > 0
    assert 3 in [batch["batch_size"] for batch in after["batch_stats"]]
    assert after["last_inference"] > before["last_inference"] > 1.7e12
    everything = world.http.get("/v2/models/stats").json()["model_stats"]
    assert {("toy", "2"), ("pair", "1")} <= {(stats["name"], stats["version"]) for stats in everything}
    refused(world.http.get("/v2/models/none/stats"), 404, "no model is called")
    refused(world.http.get("/v2/models/toy/versions/9/stats"), 404, "no version toy 9")


def index(world: World, **wanted: bool) -> dict[tuple[str, str], tuple[str, str]]:
    listed = world.http.post("/v2/repository/index", json=wanted).json()
    return {(each["name"], each["version"]): (each["state"], each["reason"]) for each in listed}


def test_a_model_is_loaded_and_unloaded_and_the_answer_is_true(world: World) -> None:
    http = world.http
    world.bring("comes", builders.classifier(3))
    refused(http.post("/v2/repository/models/comes/load"), 422, "no version of comes was released")
    world.client.release("comes", 1)
    assert index(world)["comes", "1"] == ("UNAVAILABLE", "no device is to run it")
    answer = http.post("/v2/repository/models/comes/load", json={})
    assert (answer.status_code, answer.json()) == (200, {"name": "comes", "version": "1", "state": "READY"})
    assert http.post("/v2/models/comes/infer", json=body()).status_code == 200
    assert index(world, ready=True)["comes", "1"] == ("READY", "")
    assert ("toy", "1") not in index(world, ready=True)
    rollouts = len(world.client.rollouts())
    assert http.post("/v2/repository/models/comes/load").status_code == 200
    assert len(world.client.rollouts()) == rollouts
    gone = http.post("/v2/repository/models/comes/unload", json={"parameters": {"unload_dependents": False}})
    assert (gone.status_code, gone.json()["state"]) == (200, "UNAVAILABLE")
    refused(http.post("/v2/models/comes/infer", json=body()), 503, "was unloaded from all devices")
    assert http.get("/v2/models/comes/ready").status_code == 503
    assert http.post("/v2/repository/models/comes/unload").status_code == 200
    refused(http.post("/v2/repository/models/none/unload"), 404, "no model is called")
    refused(http.post("/v2/repository/models/comes/load", json={"parameters": {"config": "{}"}}), 422, "sent along")


def test_a_version_that_devices_refuse_is_not_called_loaded(world: World) -> None:
    good, bad = builders.classifier(4), builders.classifier(5, wrong=True)
    world.roll_out("picky", world.bring("picky", good))
    world.client.release("picky", world.bring("picky", bad, judged_by=good))
    refused(world.http.post("/v2/repository/models/picky/load"), 502, "one: refused, ")
    found = index(world)
    assert found["picky", "1"] == ("READY", "")
    assert found["picky", "2"][0] == "UNAVAILABLE"


def picture(kind: str = "PNG", value: int = 200) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((9, 9), value, np.uint8)).save(file, kind)
    return file.getvalue()


def best_of(row: np.ndarray) -> str:
    [scores] = wanted(builders.classifier(2), x=row)["scores"]
    return LABELS[int(scores.argmax())]


def test_a_picture_is_answered_with_labels_best_first(world: World) -> None:
    for kind in ("PNG", "JPEG"):
        answer = world.http.post("/api/v1/models/toy/predict?top=2", content=picture(kind))
        told = answer.json()
        assert answer.status_code == 200, told
        [row] = told["predictions"]
        assert row["label"] == best_of(np.full((1, 16), 200 / 64 - 2, np.float32))
        assert [entry["label"] for entry in row["top"]][:1] == [row["label"]]
        assert len(row["top"]) == 2
        assert row["top"][0]["score"] >= row["top"][1]["score"]
        assert LABELS[row["top"][0]["number"]] == row["label"]
        assert (told["version"], told["device"]) == (2, "one")
        assert told["artifact"]
        assert told["runtime"]
        assert world.client.request(told["request"]).state == "answered"


def test_a_form_with_several_pictures_has_a_row_for_each(world: World) -> None:
    files = [("file", (f"{value}.png", picture(value=value), "image/png")) for value in (0, 128, 255)]
    told = world.http.post("/api/v1/models/toy/predict", files=files).json()
    want = [best_of(np.full((1, 16), value / 64 - 2, np.float32)) for value in (0, 128, 255)]
    assert [row["label"] for row in told["predictions"]] == want


@pytest.mark.parametrize("wrapped", [lambda rows: rows, lambda rows: {"inputs": rows}, lambda rows: {"x": rows}])
def test_plain_json_and_npy_give_the_same_answer(world: World, wrapped: Any) -> None:
    told = world.http.post("/api/v1/models/toy/predict", json=wrapped(X.tolist())).json()
    want = [LABELS[i] for i in SCORES.argmax(1)]
    assert [row["label"] for row in told["predictions"]] == want
    file = io.BytesIO()
    np.save(file, X)
    told = world.http.post("/api/v1/models/toy/predict", content=file.getvalue()).json()
    assert [row["label"] for row in told["predictions"]] == want


def test_what_a_model_cannot_take_is_refused_in_words(world: World) -> None:
    def send(content: bytes, model: str = "toy") -> httpx.Response:
        return world.http.post(f"/api/v1/models/{model}/predict", content=content)

    refused(send(b""), 400, "the body is empty")
    refused(send(b"nothing"), 422, "the body is no picture")
    refused(send(b"{"), 422, "the body is no JSON")
    refused(send(b'{"y": [1]}'), 422, "the model takes x")
    refused(send(b"[1, 2]"), 422, "takes rows of [16]")
    refused(send(picture()[:45]), 422, "the body is no picture")
    refused(send(picture(), "pair"), 422, "how a picture becomes its input")
    refused(send(b"[[1, 2, 3]]", "pair"), 422, "the model takes 2 inputs")
    refused(send(picture(), "none"), 404, "no model is called")
    refused(world.http.post("/api/v1/models/toy/predict", data={"a": "b"}, files={}), 422, "no picture")
    assert send(b'{"a": [[1, 2, 3]], "b": [[4, 5, 6]]}', "pair").json()["predictions"]


def test_an_unloaded_model_stays_away_over_a_restart_and_from_devices_that_join(tmp_path: Path) -> None:
    with World(tmp_path) as world:
        world.add_agent("one")
        world.roll_out("toy", world.bring("toy", builders.classifier()))
        world.agents.pop("one").stop()
        gone = world.http.post("/v2/repository/models/toy/unload").json()
        assert gone == {"name": "toy", "state": "UNAVAILABLE", "follow_on_return": ["one"]}
        world.controller.stop()
        world.restart_controller()
        world.start_agent("one")
        world.add_agent("two")
        assert until(lambda: not world.client.device("one").models)
        assert not world.client.device("two").models
        assert world.client.rollouts()[0].state == "withdrawn"
        assert world.http.post("/v2/repository/models/toy/load").status_code == 200
        assert all(world.serves(name, "toy") for name in ("one", "two"))
