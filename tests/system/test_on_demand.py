"""A model that no device has is brought to one by a request for it; its way is told step by step, its answer kept."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from controller.policy import KEEP
from controller.trace import STEPS
from tests.builders import FEATURES, classifier
from tests.system.world import World

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
BODY = {"inputs": [{"name": "x", "shape": [1, FEATURES], "datatype": "FP32", "data": [0.5] * FEATURES}]}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("world")) as made:
        made.add_agent("pi-1")
        yield made


def _ask(world: World, model: str, **headers: str) -> httpx.Response:
    return world.http.post(f"/v2/models/{model}/infer", json=BODY, headers=headers)


def _until(ask: Any, what: str) -> Any:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if found := ask():
            return found
        time.sleep(0.1)
    raise AssertionError(what)


def test_many_who_ask_at_once_wait_for_one_rollout_and_all_are_answered(world: World) -> None:
    world.push("wanted", classifier())
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: _ask(world, "wanted"), range(8)))
    assert [answer.status_code for answer in answers] == [200] * 8
    assert len([r for r in world.client.rollouts() if r.model == "wanted"]) == 1


def test_who_does_not_want_to_wait_gets_202_and_a_place_to_look(world: World) -> None:
    world.push("later", classifier(2))
    first = _ask(world, "later", Prefer="respond-async")
    assert (first.status_code, first.headers["Location"]) == (202, "/api/v1/models/later/preparation")
    assert first.json()["error"].startswith("later is being prepared")
    states: list[str] = []

    def ready() -> bool:
        states.append(world.http.get(first.headers["Location"]).json()["state"])
        return "ready" in states

    _until(ready, f"it became ready: {states}")
    assert set(states) <= {"preparing", "ready"}
    assert _ask(world, "later").status_code == 200


def test_a_policy_of_off_begins_nothing_and_an_unknown_model_is_no_reason_to_begin(world: World) -> None:
    world.push("resting", classifier(3))
    world.client.set_policy("resting", {"on_demand": "off"})
    assert _ask(world, "resting").status_code == 503
    assert not [r for r in world.client.rollouts() if r.model == "resting"]
    assert _ask(world, "nonsense").status_code == 404


def test_a_version_that_was_not_built_for_the_devices_here_says_what_to_do(world: World) -> None:
    world.push("unbuilt", classifier(4))
    source = world.client.version("unbuilt", "latest").source
    world.http.post("/api/v1/models/bare/versions", json={"source": source, "source_name": "m.tflite"})
    refused = _ask(world, "bare")
    assert refused.status_code == 503
    assert "bare version 1 was not built for x86-cpu" in refused.json()["error"]
    world.client.set_policy("bare", {"on_demand": "optimize"})
    assert "needs the data" in _ask(world, "bare").json()["error"]


def test_all_seven_steps_have_their_time_under_the_callers_trace(world: World) -> None:
    world.push("traced", classifier(5))
    answer = _ask(world, "traced", traceparent=f"00-{TRACE}-00f067aa0ba902b7-01")
    request = answer.json()["id"]
    assert answer.headers["traceparent"] == f"00-{TRACE}-{request[-16:]}-01"
    found = world.client.request(request)
    assert [step.step for step in found.steps] == list(STEPS)
    optimized = found.steps[1]
    assert "rolled out by rollout-" in optimized.detail
    assert optimized.ms > 50
    assert found.steps[-1].ms > 0
    assert "kept, without its inputs" in found.steps[-1].detail
    assert [r.id for r in world.client.requests_of(TRACE)] == [request]


def _stored(world: World, **search: Any) -> list[str]:
    return [answer.id for answer in world.client.answers(**search).answers]


def test_answers_are_found_with_their_tensors_and_without_what_was_asked(world: World) -> None:
    world.push("kept", classifier(6))
    told = [_ask(world, "kept").json() for _ in range(5)]
    ids = [each["id"] for each in told]
    _until(lambda: len(_stored(world, model="kept")) == 5, "they are written")
    assert _stored(world, model="kept", device="pi-1", state="answered", version=1) == ids[::-1]
    assert _stored(world, model="kept", until=1.0) == _stored(world, model="kept", device="pi-9") == []
    page = world.client.answers(model="kept", limit=3)
    assert [a.id for a in page.answers] + _stored(world, model="kept", limit=3, after=page.next) == ids[::-1]
    answer = world.client.answer(ids[0])
    assert answer.inputs is None
    [scores] = answer.outputs
    assert scores.name == told[0]["outputs"][0]["name"]
    assert np.frombuffer(scores.data, scores.dtype).tolist() == pytest.approx(told[0]["outputs"][0]["data"])
    assert world.http.get("/api/v1/answers", params={"after": "x"}).status_code == 400


def test_a_models_own_policy_decides_what_is_kept_and_how_much(world: World) -> None:
    world.push("own", classifier(7))
    assert KEEP[-1] == "all"
    world.client.set_policy("own", {"keep": "all", "megabytes": 0.003})
    first = _ask(world, "own").json()["id"]
    _until(lambda: _stored(world, model="own"), "it is written")
    [x] = world.client.answer(first).inputs or ()
    assert (x.name, x.dtype, x.shape, len(x.data)) == ("x", "float32", (1, FEATURES), 4 * FEATURES)
    last = [_ask(world, "own").json()["id"] for _ in range(30)][-1]
    _until(lambda: last in _stored(world, model="own"), "the newest are kept")
    held = world.client.answers(model="own").answers
    assert sum(a.size for a in held) <= 3000
    assert first not in [a.id for a in held]
    world.client.set_policy("own", {"keep": "none"})
    silent = _ask(world, "own").json()["id"]
    world.client.request(silent)
    assert silent not in _stored(world, model="own")


def test_a_restarted_controller_knows_its_policies_and_answers(tmp_path: Path) -> None:
    with World(tmp_path / "world") as world:
        world.add_agent("pi-2")
        world.push("own", classifier())
        world.client.set_policy("own", {"days": 3})
        asked = _ask(world, "own").json()["id"]
        world.controller.stop()
        world.restart_controller()
        assert world.client.policy("own").policy.days == 3
        assert _stored(world) == [asked]
