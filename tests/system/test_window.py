"""A fleet of one, with memory for one version: while it has none, requests wait or are told when to come again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests import builders
from tests.fake_controller import until
from tests.system.world import World

MODEL = "digits"
ROW = {"inputs": [{"name": "x", "shape": [1, 16], "datatype": "FP32", "data": [0.5] * builders.FEATURES}]}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with World(tmp_path) as world:
        # The window is as long as it takes to write the state: long enough to be seen.
        monkeypatch.setenv("LEPTA_FAULTS", "state.before_rename=delay:400")
        world.add_agent("edge-1")
        world.agents["edge-1"].stop()
        config = tmp_path / "edge-1" / "agent.toml"
        config.write_text(config.read_text() + "[simulate]\nfree_memory_mb = 20\n[limits]\nmemory_reserve_mb = 0\n")
        world.start_agent("edge-1")
        yield world


class Users:
    """Somebody asks every 50 ms, whether those before him were answered or not."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._pool = ThreadPoolExecutor(64)
        self.answers: list[httpx.Response] = []

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            self._pool.submit(self._ask)

    def _ask(self) -> None:
        self.answers.append(self._world.http.post(f"/v2/models/{MODEL}/infer", json=ROW))

    def __enter__(self) -> Users:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._pool.shutdown()


@pytest.mark.parametrize(("on_demand", "statuses"), [("place", {200}), ("off", {200, 503})])
def test_in_the_window_of_a_fleet_of_one_requests_wait_or_get_a_503_that_says_when_to_come_again(
    world: World, on_demand: str, statuses: set[int]
) -> None:
    world.roll_out(MODEL, world.bring(MODEL, builders.classifier(1)))
    assert world.http.put(f"/api/v1/models/{MODEL}/policy", json={"on_demand": on_demand}).is_success
    following = world.bring(MODEL, builders.classifier(2), memory_mb=30)
    with Users(world) as users:
        world.roll_out(MODEL, following)
        until(lambda: any(_version(a) == following for a in users.answers), "the new version answers")
    assert {answer.status_code for answer in users.answers} == statuses
    turned_away = [answer for answer in users.answers if answer.status_code == 503]
    assert all(answer.headers["Retry-After"] == "1" for answer in turned_away)
    assert all("it left to make room for a new version" in answer.json()["error"] for answer in turned_away)
    assert {_version(answer) for answer in users.answers if answer.status_code == 200} == {following - 1, following}
    [swap] = [each for each in world.client.device("edge-1").swaps if each.to_version == following]
    assert swap.alone


def _version(answer: httpx.Response) -> int:
    return int(answer.json()["parameters"]["version"]) if answer.status_code == 200 else 0
