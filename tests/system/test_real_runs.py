"""Runs with the real optimizer: cancelled while it trains or imports TensorFlow, and cut off by a kill."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from controller.client.follow import follow_example
from controller.optimizations import Optimizations
from controller.replies import Example, Run
from controller.settings import Limits
from tests.system.world import World

pytestmark = pytest.mark.slow

GONE_S = 2.0
RECIPE = """
[prune]
budgets = [0.5]
rounds = 1
rows = 256
[prune.after]
epochs = 2
batch = 128
[quantize]
qat = "never"
mixed = "never"
"""


class Quiet:
    """Progress that nobody looks at."""

    def update(self, step: str, fraction: float | None = None, detail: str = "") -> None: ...


def family(depth: int) -> list[psutil.Process]:
    """Processes so many generations below the optimizer: 0 itself, 1 its zygotes, 2 what they do."""
    found = psutil.Process().children()
    for _ in range(depth):
        found = [child for parent in found if parent.is_running() for child in parent.children()]
    return found


async def _until(holds: Callable[[], object], seconds: float) -> float:
    """How long it took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, "waited in vain"
        await asyncio.sleep(0.01)
    return time.monotonic() - began


def _play(folder: Path, ripe: Callable[[list[dict[str, Any]]], bool], depth: int) -> float:
    """Train a network for very long, cancel it once it is `ripe`; how long its processes of `depth` lived on."""

    async def play() -> float:
        events: list[dict[str, Any]] = []
        runs = Optimizations(folder / "logs", Limits(), lambda _, event: events.append(event))
        runs.start()
        try:
            runs.example("a", "digits", folder / "a", {"epochs": 100, "channels": [64, 64, 64]})
            await _until(lambda: ripe(events), 120)
            doomed = family(depth)
            assert doomed
            runs.cancel("a")
            seconds = await _until(lambda: not any(process.is_running() for process in doomed), 20)
            # The next one is served.
            runs.example("b", "unknown", folder / "b", {})
            await _until(lambda: any(event.get("id") == "b" for event in events), 20)
            return seconds
        finally:
            await runs.stop()

    return asyncio.run(play())


def test_training_is_gone_two_seconds_after_its_cancellation_and_its_parent_stays_warm(tmp_path: Path) -> None:
    seconds = _play(tmp_path, lambda events: any("epoch 2" in str(event.get("detail")) for event in events), depth=2)
    print(f"a training child was gone {seconds:.3f} s after the cancellation")
    assert seconds < GONE_S


def test_a_run_that_is_cancelled_while_tensorflow_is_imported_leaves_nothing_two_seconds_later(tmp_path: Path) -> None:
    seconds = _play(tmp_path, lambda events: bool(family(1)), depth=1)
    print(f"an importing process was gone {seconds:.3f} s after the cancellation")
    assert seconds < GONE_S


def test_a_killed_controller_goes_on_with_the_run_and_does_no_finished_pass_again(tmp_path: Path) -> None:
    with World(tmp_path) as world:
        example = _made(world)
        version = world.client.add_version(
            "digits",
            source=example.files["model"],
            source_name="digits.keras",
            data=example.files["data"],
            labels=example.labels,
            preprocessing=example.preprocessing,
        )
        run = world.client.start_run("digits", version.version, profiles=["x86-cpu"], recipe=RECIPE)
        seen = _follow(world, run, until=lambda now: now.step == "quantize")
        assert "prune" in seen
        world.controller.process.kill()
        world.controller.process.wait()
        world.restart_controller()
        again = [(now.step, now.detail) for now in world.client.run_events(run.id)]
        assert not any(step == "prune" and "epoch" in detail for step, detail in again)
        ended = world.client.run(run.id)
        assert (ended.state, ended.attempts) == ("done", 2)
        passes = {each["name"]: each["remembered"] for each in world.client.run_report(run.id)["passes"]}
        assert passes["prune"] is True
        assert passes["quantize"] is False


def _made(world: World) -> Example:
    started = world.client.start_example("digits", epochs=2, seed=1)
    return follow_example(world.client, started, Quiet(), "digits", 180)


def _follow(world: World, run: Run, until: Callable[[Any], bool]) -> set[str]:
    seen = set()
    for now in world.client.run_events(run.id):
        seen.add(now.step)
        if until(now):
            return seen
    raise AssertionError(f"the run ended before: {world.client.run(run.id)}")
