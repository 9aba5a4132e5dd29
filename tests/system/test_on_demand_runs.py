"""A request for a version that was never built: a real run of the optimizer, a release, a rollout, an answer."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from agent.runtime import load, predict
from controller.trace import STEPS
from tests.builders import RUNTIMES
from tests.model_files import float_tflite
from tests.system import cli
from tests.system.world import World

pytestmark = pytest.mark.slow

PATIENCE_S = 240.0
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
ASYNC = {"Prefer": "respond-async", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}


def keras(folder: Path) -> tuple[str, int]:
    """Writes model and data; returns the file's name and how many numbers a row has."""
    script = Path(__file__).with_name("keras_small.py")
    subprocess.run([sys.executable, script, folder], check=True, capture_output=True)
    return "source.keras", 16


def tflite(folder: Path) -> tuple[str, int]:
    content = float_tflite()
    (folder / "source.tflite").write_bytes(content)
    model = load(content, runtimes=RUNTIMES)
    x = np.random.default_rng(0).uniform(-1, 1, (1000, 32)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, y=predict(model, {"x": x})["scores"].argmax(1))
    return "source.tflite", 32


def bring(world: World, folder: Path, name: str) -> None:
    """A version that was never built."""
    source, data = (world.client.put_file(folder / file).digest for file in (name, "data.npz"))
    world.client.add_version("fresh", source=source, source_name=name, data=data, labels=(), preprocessing=None)


def ask(world: World, width: int, **headers: str) -> httpx.Response:
    body = {"inputs": [{"name": "x", "shape": [1, width], "datatype": "FP32", "data": [0.5] * width}]}
    return world.http.post("/v2/models/fresh/infer", json=body, headers=headers, timeout=PATIENCE_S)


def follow(world: World, location: str) -> list[str]:
    """What was waited for, in its order, until it is ready."""
    steps: list[str] = []
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        told: dict[str, Any] = world.http.get(location).json()
        assert told["state"] in ("preparing", "ready"), told
        if told["step"] not in (*steps, ""):
            steps.append(told["step"])
            assert world.http.get(told["follow"]).status_code == 200
        if told["state"] == "ready":
            return steps
        time.sleep(0.05)
    raise AssertionError(f"not ready after {steps}")


@pytest.mark.parametrize("write", [tflite, keras])
def test_a_request_begins_run_and_release_by_policy_and_who_follows_it_is_answered(tmp_path: Path, write: Any) -> None:
    name, width = write(tmp_path)
    with World(tmp_path / "world") as world, ThreadPoolExecutor(1) as pool:
        world.add_agent("pi-1")
        bring(world, tmp_path, name)
        assert ask(world, width).status_code == 503, "as long as the policy does not let a request begin a run"
        world.client.set_policy("fresh", {"on_demand": "optimize"})
        first = ask(world, width, **ASYNC)
        assert (first.status_code, first.headers["Location"]) == (202, "/api/v1/models/fresh/preparation")
        patient = pool.submit(ask, world, width, Prefer=f"wait={PATIENCE_S:.0f}")
        assert follow(world, first.headers["Location"])[0] == "run"
        answer = ask(world, width, traceparent=ASYNC["traceparent"])
        assert (answer.status_code, answer.json()["parameters"]["device"]) == (200, "pi-1")
        waited = patient.result()
        assert waited.json()["outputs"] == answer.json()["outputs"]
        assert [run.state for run in world.client.runs()] == ["done"]
        shown = cli.lepta(world.data, "trace", waited.json()["id"]).stdout
        assert "optimized by run-" in shown
        assert "rolled out by rollout-" in shown
        assert [step.step for step in world.client.request(waited.json()["id"]).steps] == list(STEPS)
        assert all(step in shown for step in STEPS)
        both = {request.id: request.state for request in world.client.requests_of(TRACE)}
        assert both == {first.headers["Lepta-Request"]: "preparing", answer.json()["id"]: "answered"}


def test_who_asks_at_the_command_line_waits_for_the_run_and_is_answered(tmp_path: Path) -> None:
    name, width = tflite(tmp_path)
    np.save(tmp_path / "row.npy", np.full((1, width), 0.5, np.float32))
    with World(tmp_path / "world") as world:
        world.add_agent("pi-1")
        bring(world, tmp_path, name)
        refused = cli.lepta(world.data, "infer", "fresh", str(tmp_path / "row.npy"))
        assert refused.returncode == 1
        assert "was not built for x86-cpu" in refused.stderr
        assert "lepta model policy fresh --on-demand optimize" in refused.stderr
        set_ = cli.lepta(world.data, "model", "policy", "fresh", "--on-demand", "optimize")
        assert set_.returncode == 0, set_.stderr
        asked = cli.lepta(world.data, "infer", "fresh", str(tmp_path / "row.npy"))
        assert asked.returncode == 0, asked.stderr
        assert "fresh version 1, on pi-1" in asked.stdout
