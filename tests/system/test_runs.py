"""Runs on a controller, with an optimizer's double: asked for, followed, begun anew."""

from __future__ import annotations

import asyncio
import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn

from controller.app import Assembly, create_app
from controller.parts import Controller
from controller.settings import Limits, Settings
from tests import keras_files, optimizer_double

ROOT = Path(__file__).parents[2]
API = "/api/v1"
QUICK = Limits(watch_beat_s=0.2, optimizer_stop_s=0.5, run_attempts=3)
# A controller on the folder of its first argument; with a second one it starts a run of that model.
CONTROLLER = """
import sys, time
from pathlib import Path
from tests.system.test_runs import running
with running(Path(sys.argv[1])) as desk:
    if len(sys.argv) > 2:
        desk.start(sys.argv[2])
    time.sleep(60)
"""


class Desk:
    """Somebody with a key, over real HTTP."""

    def __init__(self, controller: Controller, http: httpx.Client, folder: Path) -> None:
        self.controller = controller
        self.http = http
        self._folder = folder

    def start(self, model: str, **options: Any) -> str:
        """A run's id."""
        answer = self.ask_for(model, **options)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def ask_for(self, model: str, **options: Any) -> httpx.Response:
        source = keras_files.write(self._folder / "m.keras", keras_files.model_of([keras_files.DENSE]))
        np.savez(self._folder / "d.npz", x=np.zeros((4, 3), np.float32))
        digests = [self._put(path) for path in (source, self._folder / "d.npz")]
        names = {"source": digests[0], "source_name": "m", "data": digests[1], "data_name": "folder.zip"}
        added = self.http.post(f"{API}/models/{model}/versions", json=names)
        assert added.status_code == 201, added.text
        body = {"model": model, "version": added.json()["version"], "profiles": ["rpi4"], **options}
        return self.http.post(f"{API}/runs", json=body)

    def until(self, run: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        wait_until(lambda: holds(self.run(run)))
        return self.run(run)

    def run(self, run: str) -> dict[str, Any]:
        return dict(self.http.get(f"{API}/runs/{run}").json())

    def events(self, run: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """(kind, data) of every event, ("beat", {}) of a heartbeat."""
        with self.http.stream("GET", f"{API}/runs/{run}/events") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            kind = ""
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if line.startswith(":"):
                    yield "beat", {}
                elif name == "event":
                    kind = value
                elif name == "data":
                    yield kind, json.loads(value)

    def _put(self, path: Path) -> str:
        return str(self.http.put(f"{API}/files", content=path.read_bytes()).json()["digest"])


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def running(folder: Path, limits: Limits = QUICK) -> Iterator[Desk]:
    """A controller with the double, on real HTTP, in a thread of this process."""
    (folder / "data").mkdir(exist_ok=True)
    settings = Settings(data=folder / "data", broker="embedded", limits=limits)
    ready: queue.Queue[tuple[Controller, uvicorn.Server]] = queue.Queue()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(settings, ready)), daemon=True)
    thread.start()
    controller, server = ready.get(timeout=30)
    wait_until(lambda: server.started)
    address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    key = {"Authorization": f"Bearer {controller.keys.api_token}"}
    try:
        with httpx.Client(base_url=address, headers=key, timeout=20, trust_env=False) as http:
            yield Desk(controller, http, folder)
    finally:
        server.should_exit = True
        thread.join(30)


async def _serve(settings: Settings, ready: queue.Queue[tuple[Controller, uvicorn.Server]]) -> None:
    assembly = Assembly(settings, "http://127.0.0.1:1", optimizer_double.COMMAND)
    async with assembly.running() as controller:
        server = uvicorn.Server(uvicorn.Config(create_app(controller), port=0, log_config=None, lifespan="off"))
        ready.put((controller, server))
        await server.serve()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with running(tmp_path) as desk:
        yield desk


def test_events_tell_the_whole_state_first_then_every_change_and_end_with_the_run(desk: Desk) -> None:
    run = desk.start("slow")
    desk.until(run, lambda found: found["fraction"] == 0.5)
    told = []
    for kind, data in desk.events(run):
        told.append((kind, data))
        if len(told) == 3:
            desk.http.post(f"{API}/runs/{run}/cancel")
    first, last = told[0], told[-1]
    said = ("progress", "running", "prune", "rpi4", 0.5, "epoch 2 of 4, 98.2 %", None)
    names = ("state", "step", "profile", "fraction", "detail", "left_s")
    assert (first[0], *(first[1][name] for name in names)) == said
    assert (last[0], last[1]["state"]) == ("end", "cancelled")
    assert {kind for kind, _ in told[1:-1]} == {"beat"}


def test_one_who_follows_from_the_beginning_hears_of_the_way_and_the_end(desk: Desk) -> None:
    told = [data for kind, data in desk.events(desk.start("report")) if kind != "beat"]
    assert told[-1]["state"] == "failed"
    assert "too slow" in told[-1]["error"]
    assert [data["fraction"] for data in told] == sorted(data["fraction"] for data in told)


def test_the_time_that_is_left_is_passed_on(desk: Desk) -> None:
    run = desk.start("stuck")
    found = desk.until(run, lambda found: found["fraction"] == 0.25)
    assert (found["left_s"], found["attempts"]) == (41.5, 1)


def test_a_follower_that_goes_away_costs_nothing_and_too_many_are_told_so(tmp_path: Path) -> None:
    with running(tmp_path, Limits(watchers=1, optimizer_stop_s=0.5)) as desk:
        run = desk.start("slow")
        watchers = desk.controller.fleet.runs.watchers
        following = desk.events(run)
        next(following)
        assert watchers.full
        refused = desk.http.get(f"{API}/runs/{run}/events")
        assert refused.status_code == 503
        assert f"GET {API}/runs/{run}" in refused.json()["hint"]
        following.close()  # type: ignore[attr-defined]
        wait_until(lambda: not watchers.full)
        assert desk.http.get(f"{API}/runs/nobody/events").status_code == 404


def test_a_report_is_there_when_its_run_is_over_and_until_then_the_way_is_told(desk: Desk) -> None:
    slow, done = desk.start("slow"), desk.start("report")
    for path in ("report", "report.html"):
        early = desk.http.get(f"{API}/runs/{slow}/{path}")
        assert early.status_code == 404
        assert early.json()["hint"] == f"lepta run show {slow} --watch"
    desk.http.post(f"{API}/runs/{slow}/cancel")
    desk.until(done, lambda found: found["state"] == "failed")
    assert desk.http.get(f"{API}/runs/{done}/report").json()["rejected"][0]["profile"] == "rpi4"
    page = desk.http.get(f"{API}/runs/{done}/report.html")
    assert "a report" in page.text
    assert page.headers["content-security-policy"].startswith("sandbox")


def test_the_optimizer_gets_the_recipe_the_cache_and_names_with_their_endings(desk: Desk, tmp_path: Path) -> None:
    text = "[quantize]\nqat = 'never'\n"
    by_text = desk.start("report", recipe=text, compare=False, trust=True)
    by_name = desk.start("report", recipe="ptq")
    for run in (by_text, by_name):
        desk.until(run, lambda found: found["state"] == "failed")
    folder = tmp_path / "data" / "runs"
    own = json.loads((folder / by_text / "run.json").read_text())
    assert Path(own["recipe"]).read_text() == text
    assert (own["compare"], own["trust"]) == (False, True)
    assert [Path(own[role]).name for role in ("source", "data")] == ["m.keras", "folder.zip"]
    assert (own["cache"], own["cache_bytes"]) == (str(tmp_path / "data" / "optimizer-cache"), 4096 * 2**20)
    named = json.loads((folder / by_name / "run.json").read_text())
    assert (named["recipe"], named["compare"], named["trust"]) == ("ptq", None, False)


@pytest.mark.parametrize(
    ("recipe", "status", "told"),
    [
        ("fastest", 404, "there are article, default, "),
        ("[quantize", 422, "the recipe is not TOML"),
        ("[distill]\nstudent = '/etc/passwd'", 422, "names a file"),
        ("x = '" + "y" * 20_000 + "'", 422, "more than 16384 bytes"),
    ],
    ids=["unknown", "malformed", "foreign file", "too long"],
)
def test_a_recipe_that_cannot_be_used_is_refused_before_anything_starts(
    desk: Desk, recipe: str, status: int, told: str
) -> None:
    refused = desk.ask_for("report", recipe=recipe)
    assert (refused.status_code, told in refused.text) == (status, True), refused.text
    assert desk.http.get(f"{API}/runs").json() == []


def test_only_an_admin_lets_a_models_code_run_here(desk: Desk) -> None:
    asked = {"name": "builder", "scopes": ["release", "read", "infer"], "expires_s": 600}
    key = desk.http.post(f"{API}/keys", json=asked).json()["key"]
    desk.http.headers["Authorization"] = f"Bearer {key}"
    refused = desk.ask_for("report", trust=True)
    assert refused.status_code == 403
    assert "the key 'builder' may not allow that" in refused.json()["error"]
    assert "admin" in refused.json()["hint"]
    assert desk.ask_for("report").status_code == 202


@pytest.mark.slow
def test_a_stop_on_purpose_is_not_the_runs_fault_and_it_goes_again(tmp_path: Path) -> None:
    with running(tmp_path) as desk:
        run = desk.start("slow")
        desk.until(run, lambda found: found["fraction"] == 0.5)
    for _ in range(QUICK.run_attempts + 1):
        with running(tmp_path) as desk:
            found = desk.until(run, lambda found: found["fraction"] == 0.5)
            assert (found["state"], found["attempts"]) == ("running", 1)


@pytest.mark.slow
def test_a_run_that_kills_the_controller_is_tried_three_times_and_then_fails_and_says_so(tmp_path: Path) -> None:
    for arguments in (["poison"], [], []):
        command = [sys.executable, "-c", CONTROLLER, str(tmp_path), *arguments]
        done = subprocess.run(command, cwd=ROOT, timeout=60, check=False)
        assert done.returncode == -signal.SIGKILL
    with running(tmp_path) as desk:
        [run] = desk.http.get(f"{API}/runs").json()
        assert (run["state"], run["attempts"]) == ("failed", 3)
        assert "killed 3 times while this run was at work" in run["error"]
        desk.until(desk.start("report"), lambda found: found["state"] == "failed")
