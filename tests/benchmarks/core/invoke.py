"""Processor time per request on its way, hop by hop, against the bare interpreter on the same input."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import numpy as np
import psutil

from agent.runtime import load
from tests.benchmarks import measure
from tests.benchmarks.bare import bare_work
from tests.benchmarks.fleet import Fleet
from tests.benchmarks.load import Requests
from tests.benchmarks.results import Figure
from tests.builders import RUNTIMES, dscnn, file_ref, mobilenet_v2

DEVICE = "pi"
LANES = 2


def figures(folder: Path, quick: bool) -> list[Figure]:
    found = []
    models = {"dscnn": (dscnn(), 4000), "mobilenet": (mobilenet_v2(1.0, 96), 1500)}
    with Fleet(folder) as fleet:
        agent = fleet.add_agent(DEVICE)
        for name, (content, count) in models.items():
            fleet.roll_out(name, fleet.push(name, content))
            found += _one(fleet, agent.process.pid, name, content, count // (10 if quick else 1))
    return found


def _one(fleet: Fleet, supervisor: int, name: str, content: bytes, count: int) -> list[Figure]:
    before = _bare_us(fleet.folder, name, content, count)
    spent = asyncio.run(_spent(fleet, supervisor, name, content, count))
    raw = (before + _bare_us(fleet.folder, name, content, count)) / 2
    hops = {hop: seconds / count * 1e6 for hop, seconds in spent.items()}
    ratio = (hops["supervisor"] + hops["worker"]) / raw
    text = ", ".join(f"{hop} {each:,.0f}" for hop, each in hops.items())
    shape = "x".join(map(str, load(content, runtimes=RUNTIMES).inputs[0].shape))
    return [
        Figure(
            f"invoke_cpu_ratio_{name}",
            ratio,
            "",
            note=f"input {shape} float32; us per request: {text}; bare {raw:,.0f}",
        ),
        Figure(f"invoke_cpu_us_{name}_bare", raw, "us"),
        *(Figure(f"invoke_cpu_us_{name}_{hop}", each, "us") for hop, each in hops.items()),
    ]


def _bare_us(folder: Path, name: str, content: bytes, count: int) -> float:
    model, rows = folder / f"{name}.tflite", folder / f"{name}.npy"
    spec = load(content, runtimes=RUNTIMES).inputs[0]
    model.write_bytes(content)
    np.save(rows, np.random.default_rng(0).integers(-100, 100, (8, *spec.shape)).astype(spec.dtype))
    return bare_work(model, rows, count, processes=1).cpu_s / count * 1e6


async def _spent(fleet: Fleet, supervisor: int, name: str, content: bytes, count: int) -> dict[str, float]:
    """Seconds of processor time by hop for `count` requests."""
    async with Requests(fleet.client, name, content, {file_ref(content).digest}) as requests:
        await _ask(requests, 50)
        hops = hops_of(fleet, supervisor)
        before = {hop: measure.cpu_s(pids) for hop, pids in hops.items()}
        await _ask(requests, count)
        if requests.refused:
            raise RuntimeError(f"{len(requests.refused)} requests failed, the first: {requests.refused[0]}")
        return {hop: measure.cpu_s(pids) - before[hop] for hop, pids in hops.items()}


async def _ask(requests: Requests, count: int) -> None:
    async def lane(first: int) -> None:
        for number in range(first, count, LANES):
            await requests(number)

    await asyncio.gather(*(lane(first) for first in range(LANES)))


def hops_of(fleet: Fleet, supervisor: int) -> dict[str, list[int]]:
    """The processes on the way. Workers are the children of the agent's fork parent; an idle one costs nothing."""
    controller = fleet.controller.process.pid
    zygote = psutil.Process(supervisor).children()[0]
    return {
        "client": [os.getpid()],
        "controller": [controller],
        "broker": measure.tree(controller)[1:],
        "supervisor": [supervisor],
        "worker": [child.pid for child in zygote.children()],
    }
