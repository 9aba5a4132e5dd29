"""Devices taken out of service under load, switched off and put back: real controller, broker and agents."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from agent.runtime import load, predict
from controller.client.rest import ApiError
from controller.commands import root
from tests import builders
from tests.benchmarks.load import Requests
from tests.benchmarks.measure import Sample, open_loop
from tests.system.test_fleet import until, wait_for_job
from tests.system.world import World

# A job computes the one, requests ask the other: so neither is refused because the last device is too slow for both.
CONTENT, QUICK = builders.slow(10), builders.classifier()
MODEL = load(CONTENT, runtimes=builders.RUNTIMES)
RATE = 25.0
NAMES = ("one", "two")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("drain")) as world:
        for name in NAMES:
            world.add_agent(name)
        for model, content in (("slow", CONTENT), ("quick", QUICK)):
            world.roll_out(model, world.bring(model, content))
        yield world


@pytest.fixture
def world(fleet: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Two agents that serve `slow` and `quick`; whatever a test does to them, both are in service afterwards."""
    monkeypatch.setenv("LEPTA_DATA", str(fleet.data))
    yield fleet
    for name in NAMES:
        fleet.client.uncordon_device(name)
        if fleet.agents[name].process.poll() is not None:
            fleet.start_agent(name)


@contextmanager
def asked(world: World) -> Iterator[tuple[list[Sample], Requests]]:
    """A stream of requests while the block runs."""
    samples: list[Sample] = []
    requests = Requests(world.client, "quick", QUICK, {builders.file_ref(QUICK).digest})
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def ask() -> None:
        async with requests:
            samples.extend(await open_loop(requests, RATE, stop))

    thread = threading.Thread(target=loop.run_until_complete, args=(ask(),))
    thread.start()
    try:
        yield samples, requests
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()


def test_a_device_that_is_drained_under_load_can_be_switched_off_and_nothing_fails(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [(name, x)] = builders.random_inputs(MODEL, 120).items()
    digest = world.put_array(x, tmp_path / "x.npy")
    with asked(world) as (samples, requests):
        job = world.client.start_job("slow", digest)
        until(lambda: "one" in world.client.job(job.id).devices, "its first shards")
        assert root.run(["device", "drain", "one"]) == 0
        assert "one can be switched off" in capsys.readouterr().out
        world.agents["one"].process.kill()
        world.agents["one"].process.wait()
        share = world.client.job(job.id).devices["one"]
        assert [duty.state for duty in world.client.duty_events("one")] == ["drained"]
        ended = wait_for_job(world, job.id)
    assert requests.refused == []
    assert len(samples) > RATE
    assert (ended.state, ended.lost) == ("done", 0)
    assert ended.devices["one"] == share
    world.client.job_result(job.id, tmp_path / "result.npz")
    [want] = predict(MODEL, {name: x}).values()
    with np.load(tmp_path / "result.npz") as table:
        assert np.array_equal(table["output:scores"], want)


def test_a_cordoned_device_stays_so_over_a_restart_of_the_controller_until_it_is_uncordoned(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert root.run(["device", "cordon", "one"]) == 0
    assert "one gets nothing new" in capsys.readouterr().out
    os.kill(world.controller.process.pid, signal.SIGKILL)
    world.controller.process.wait()
    world.restart_controller()
    until(lambda: all(d.online for d in world.client.devices()), "both devices")
    inputs = builders.random_inputs(MODEL, 1)
    assert {world.client.infer("slow", inputs).device for _ in range(20)} == {"two"}
    assert (world.client.device("one").cordoned, world.client.duty("one").state) == (True, "drained")
    assert root.run(["device", "ls"]) == 0
    assert "online, cordoned" in capsys.readouterr().out
    assert root.run(["device", "undrain", "one"]) == 0
    assert "one gets work again" in capsys.readouterr().out
    until(lambda: world.client.infer("slow", inputs).device == "one", "an answer of the one that is back")


def test_the_last_device_of_a_model_is_only_taken_out_by_force(world: World) -> None:
    world.client.cordon_device("one")
    with pytest.raises(ApiError, match="no other device serves quick, slow") as refused:
        world.client.cordon_device("two", move=True)
    assert refused.value.who == "user"
    assert world.client.duty("two").state == "serving"
    assert world.client.cordon_device("two", move=True, force=True).alone == ("quick", "slow")
    with pytest.raises(ApiError, match="draining"):
        world.client.infer("slow", builders.random_inputs(MODEL, 1))
    with pytest.raises(ApiError, match="no device is called"):
        world.client.duty("three")
