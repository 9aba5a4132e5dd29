"""Swaps under a steady stream at half of capacity: failures, and p99 during swaps against control windows."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.benchmarks import measure
from tests.benchmarks.fleet import Fleet
from tests.benchmarks.load import Requests
from tests.benchmarks.measure import ChildWatch, Sample, Span
from tests.benchmarks.models import variant
from tests.benchmarks.program import PATIENCE_S, ProgramError
from tests.benchmarks.results import Figure
from tests.builders import dscnn, file_ref

MODEL, DEVICE = "keywords", "pi"
SWAPS, QUICK_SWAPS, MOST_SWAPS = 20, 3, 250
REQUESTS_IN_WINDOWS = 2000
WARM_UP_S = 2.0
SWITCH_S = 0.0001


class Recorded(NamedTuple):
    rate: float
    samples: list[Sample]
    swaps: list[Span]
    asked: list[float]
    refused: list[str]


def figures(folder: Path, quick: bool) -> list[Figure]:
    contents = [variant(dscnn(), number) for number in (1, 2)]
    # The threads that ask for rollouts and watch for forks live beside the load generator: by Python's default each of
    # their turns would delay a request here by up to 5 ms, and be counted as the swap's.
    sys.setswitchinterval(SWITCH_S)
    with Fleet(folder) as fleet:
        agent = fleet.add_agent(DEVICE)
        versions = [fleet.push(MODEL, content) for content in contents]
        fleet.roll_out(MODEL, versions[0])
        artifacts = {file_ref(content).digest for content in contents}
        zygote = psutil.Process(agent.process.pid).children()[0].pid
        with ChildWatch(zygote) as watch:
            requests = Requests(fleet.client, MODEL, contents[0], artifacts)
            recorded = asyncio.run(_stream(fleet, requests, watch, versions, quick))
    return _evaluate(recorded, quick)


async def _stream(fleet: Fleet, requests: Requests, watch: ChildWatch, versions: list[int], quick: bool) -> Recorded:
    async with requests:
        await measure.closed_loop(requests, WARM_UP_S, 8)
        capacity = len(await measure.closed_loop(requests, 2 if quick else 6, 8)) / (2 if quick else 6)
        stop, asked = asyncio.Event(), []
        stream = asyncio.create_task(measure.open_loop(requests, capacity / 2, stop))
        swaps: list[Span] = []
        while not _enough(swaps, capacity / 2, quick):
            await asyncio.sleep(max(1.0, 2 * max((swap.length for swap in swaps), default=0.0)))
            asked.append(time.monotonic())
            await asyncio.to_thread(fleet.roll_out, MODEL, versions[len(asked) % 2])
            swaps = await _after_exit(watch, len(asked))
        stop.set()
        return Recorded(capacity / 2, await stream, swaps, asked, requests.refused)


def _enough(swaps: list[Span], rate: float, quick: bool) -> bool:
    if quick or len(swaps) >= MOST_SWAPS:
        return len(swaps) >= QUICK_SWAPS
    return len(swaps) >= SWAPS and rate * sum(swap.length for swap in swaps) >= REQUESTS_IN_WINDOWS


async def _after_exit(watch: ChildWatch, count: int) -> list[Span]:
    """The swaps so far, once the old worker of the last one has exited."""
    until = time.monotonic() + PATIENCE_S
    while len(swaps := measure.swap_spans(watch.lives())) < count:
        if time.monotonic() > until:
            raise ProgramError(f"after rollout {count} the old worker is still there: {watch.lives()}")
        await asyncio.sleep(0.05)
    return swaps


def _evaluate(recorded: Recorded, quick: bool) -> list[Figure]:
    controls = measure.controls(recorded.swaps, recorded.asked)
    during = measure.in_flight(recorded.samples, recorded.swaps)
    control = measure.in_flight(recorded.samples, controls)
    failed = sum(not sample.ok for sample in recorded.samples)
    p99, calm = measure.milliseconds(during, 0.99), measure.milliseconds(control, 0.99)
    count = f"{len(recorded.swaps)} swaps, {len(during)} requests during, {len(control)} in control windows"
    lengths = [swap.length * 1000 for swap in recorded.swaps]
    refused = f"first: {recorded.refused[0]}" if recorded.refused else f"of {len(recorded.samples)} requests"
    return [
        Figure("swap_failed", failed, "", "0", failed == 0, refused, always=True),
        Figure(
            "swap_p99_ratio",
            p99 / calm,
            "",
            "<= 1.5, or + 2 ms",
            p99 <= max(1.5 * calm, calm + 2),
            count,
        ),
        Figure("swap_p99_during_ms", p99, "ms"),
        Figure("swap_p99_control_ms", calm, "ms"),
        Figure("swap_p50_during_ms", measure.milliseconds(during, 0.5), "ms"),
        Figure("swap_p50_control_ms", measure.milliseconds(control, 0.5), "ms"),
        Figure("swap_requests_in_windows", len(during)),
        Figure("swap_rate_per_s", recorded.rate, "/s", note="half of the capacity measured just before"),
        Figure(
            "swap_length_ms",
            measure.percentile(lengths, 0.5),
            "ms",
            note="fork of the candidate to exit of the old worker",
        ),
    ]
