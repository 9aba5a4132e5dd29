"""The queue of optimizer runs with a real child process that speaks the optimizer's protocol without TensorFlow."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from controller.errors import Busy
from controller.optimizations import Optimizations
from controller.settings import Limits

# Does what the model's name asks for. It has a child of its own, as the real one has its zygote.
_DOUBLE = r"""
import json, os, signal, subprocess, sys, time
zygote = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
def say(**message): print(json.dumps(message), flush=True)
def optimize(request):
    run = json.load(open(request["run"]))
    model, id = run["model"], request["id"]
    say(id=id, event="progress", step="convert", profile="rpi4", fraction=0.5, detail=str(os.getpid()))
    if model == "dies": os.kill(os.getpid(), signal.SIGKILL)
    if model == "raises": raise RuntimeError("no such layer")
    if model == "babbles": print("hello there", flush=True)
    if model == "floods": print("x" * 200_000, flush=True)
    if model == "deaf":
        while True: time.sleep(1)
    if model == "slow":
        for line in sys.stdin:
            if json.loads(line)["do"] == "cancel": break
        say(id=id, event="failed", who="user", error="cancelled")
        return
    if model == "bad":
        say(id=id, event="failed", who="user", error="labels out of range")
        return
    open(os.path.join(request["out"], "report.json"), "w").write("{}")
    say(id=id, event="done", report={"model": model, "pid": os.getpid()})
def serve():
    while line := sys.stdin.readline():
        request = json.loads(line)
        if request["do"] == "optimize": optimize(request)
        if request["do"] == "example":
            say(id=request["id"], event="done", report={"name": request["name"], "options": request["options"]})
serve()
zygote.kill()
"""


class Scene:
    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder = folder
        self.events: dict[str, list[dict[str, Any]]] = {}
        self.runs = Optimizations(folder / "logs", limits, self._event, [sys.executable, "-c", _DOUBLE])

    def _event(self, run_id: str, event: dict[str, Any]) -> None:
        self.events.setdefault(run_id, []).append(event)

    def submit(self, run_id: str, model: str = "digits") -> None:
        self.runs.submit(run_id, {"model": model}, self.folder / run_id / "out")

    async def end(self, run_id: str) -> dict[str, Any]:
        assert await _until(lambda: self.events.get(run_id, [{}])[-1].get("event") in ("done", "failed"))
        return self.events[run_id][-1]

    def pid(self, run_id: str) -> int:
        return int(self.events[run_id][0]["detail"])


async def _until(condition: Callable[[], object], seconds: float = 10.0) -> bool:
    for _ in range(int(seconds / 0.01)):
        if condition():
            break
        await asyncio.sleep(0.01)
    return bool(condition())


def _play(tmp_path: Path, act: Callable[[Scene], Awaitable[None]], limits: Limits | None = None) -> None:
    """Run a scene; then nothing that was started may be left."""

    async def play() -> None:
        scene = Scene(tmp_path, limits or Limits(optimizer_stop_s=1.0, optimizer_line_bytes=65_536))
        scene.runs.start()
        try:
            await act(scene)
        finally:
            family = psutil.Process().children(recursive=True)
            await scene.runs.stop()
        _, left = psutil.wait_procs(family, timeout=5)
        assert left == []

    asyncio.run(play())


def test_runs_go_one_after_another_through_one_process(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        for run_id in ("a", "b", "c"):
            scene.submit(run_id)
        ends = [await scene.end(run_id) for run_id in ("a", "b", "c")]
        assert [end["event"] for end in ends] == ["done"] * 3
        assert len({end["report"]["pid"] for end in ends}) == 1
        assert [event["event"] for event in scene.events["a"]] == ["progress", "done"]
        assert json.loads((tmp_path / "a" / "run.json").read_text()) == {"model": "digits"}

    _play(tmp_path, act)


def test_nothing_is_started_before_there_is_work(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        await asyncio.sleep(0.1)
        assert not scene.runs.running
        assert psutil.Process().children() == []

    _play(tmp_path, act)


def test_a_failed_run_says_why_and_the_process_goes_on(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        scene.submit("a", "bad")
        scene.submit("b")
        end = await scene.end("a")
        assert (end["event"], end["who"], end["error"]) == ("failed", "user", "labels out of range")
        assert (await scene.end("b"))["event"] == "done"
        assert scene.pid("a") == scene.pid("b")

    _play(tmp_path, act)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("dies", "killed by signal 9, as the system does when memory runs out"),
        ("raises", "ended with code 1: RuntimeError: no such layer"),
        ("babbles", "cannot be understood: b'hello there"),
        ("floods", "more than 65536 bytes at once"),
    ],
)
def test_an_optimizer_that_breaks_fails_its_run_only_and_the_next_gets_a_new_one(
    tmp_path: Path, model: str, why: str
) -> None:
    async def act(scene: Scene) -> None:
        scene.submit("a", model)
        scene.submit("b")
        end = await scene.end("a")
        assert (end["event"], end["who"]) == ("failed", "us")
        assert why in end["error"]
        assert (await scene.end("b"))["event"] == "done"
        assert scene.pid("a") != scene.pid("b")
        assert not psutil.pid_exists(scene.pid("a"))

    _play(tmp_path, act)


def test_an_optimizer_that_is_not_installed_is_a_clear_failure(tmp_path: Path) -> None:
    async def play() -> None:
        events: list[dict[str, Any]] = []
        command = [sys.executable, "-c", "import no_such_module"]
        runs = Optimizations(tmp_path / "logs", Limits(), lambda _, event: events.append(event), command)
        runs.start()
        runs.submit("a", {}, tmp_path / "a" / "out")
        assert await _until(lambda: events)
        await runs.stop()
        assert "No module named 'no_such_module'" in events[0]["error"]

    asyncio.run(play())


def test_a_cancelled_run_stops_and_nothing_more_is_told_of_it(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        for run_id, model in (("a", "slow"), ("b", "digits"), ("c", "digits")):
            scene.submit(run_id, model)
        assert await _until(lambda: "a" in scene.events)
        scene.runs.cancel("b")
        scene.runs.cancel("a")
        assert (await scene.end("c"))["event"] == "done"
        assert [event["event"] for event in scene.events["a"]] == ["progress"]
        assert "b" not in scene.events
        assert scene.pid("a") == scene.pid("c")
        scene.runs.cancel("a")

    _play(tmp_path, act)


def test_an_optimizer_that_does_not_hear_a_cancellation_is_ended(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        scene.submit("a", "deaf")
        scene.submit("b")
        assert await _until(lambda: "a" in scene.events)
        scene.runs.cancel("a")
        assert (await scene.end("b"))["event"] == "done"
        assert [event["event"] for event in scene.events["a"]] == ["progress"]

    _play(tmp_path, act, Limits(optimizer_cancel_s=0.2, optimizer_stop_s=1.0))


def test_an_idle_optimizer_is_stopped_and_started_again_when_needed(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        scene.submit("a")
        await scene.end("a")
        assert await _until(lambda: not scene.runs.running)
        assert await _until(lambda: psutil.Process().children(recursive=True) == [])
        scene.submit("b")
        assert (await scene.end("b"))["event"] == "done"

    _play(tmp_path, act, Limits(optimizer_idle_s=0.2, optimizer_stop_s=1.0))


def test_a_run_that_is_submitted_again_finds_no_leftovers(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        out = tmp_path / "a" / "out"
        out.mkdir(parents=True)
        (out / "half.tflite").write_bytes(b"half")
        scene.submit("a")
        await scene.end("a")
        assert os.listdir(out) == ["report.json"]

    _play(tmp_path, act)


def test_an_example_is_made_with_its_options(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        scene.runs.example("x", "digits", tmp_path / "x", {"epochs": 1})
        assert (await scene.end("x"))["report"] == {"name": "digits", "options": {"epochs": 1}}

    _play(tmp_path, act)


def test_more_waiting_than_allowed_is_refused(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        scene.submit("a", "slow")
        assert await _until(lambda: "a" in scene.events)
        scene.submit("b")
        with pytest.raises(Busy):
            scene.submit("c")

    _play(tmp_path, act, Limits(runs_waiting=1, optimizer_stop_s=1.0))
