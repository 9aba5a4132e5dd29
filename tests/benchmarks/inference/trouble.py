"""What callers notice of an overload, of a device that is killed, and of swaps on all devices, with three agents."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from agent.runtime import load
from controller.client.oip import HEADER_LENGTH, encode_request
from tests.benchmarks import measure
from tests.benchmarks.fleet import Fleet
from tests.benchmarks.http import Pool
from tests.benchmarks.inference import hey
from tests.benchmarks.inference.hey import Answered
from tests.benchmarks.inference.wrk import Target
from tests.benchmarks.measure import Sample
from tests.benchmarks.models import variant
from tests.benchmarks.program import PATIENCE_S
from tests.benchmarks.results import Figure, at_most
from tests.builders import RUNTIMES, dscnn, random_inputs

MODEL, DEVICES = "keywords", ("pi-1", "pi-2", "pi-3")
CALLERS = 16
"""That take all that the fleet gives: what "capacity" and "steady" are measured with."""
OVERLOAD, CROWD = 4, 256
"""Times capacity, and by how many callers."""
OVERLOAD_S, STEADY_S, LOAD_S, SWAPS = 60.0, 10.0, 10.0, 6
QUICK_S = 4.0
_REFUSED = (429, 503)
_SETTLED = 10
"""Good answers in a row after which an overload counts as over."""


class Asker:
    """Asks for one row: True for a good answer. Remembers what the others said."""

    def __init__(self, fleet: Fleet) -> None:
        body, length = encode_request(random_inputs(load(dscnn(), runtimes=RUNTIMES), 1))
        headers = {
            "Authorization": f"Bearer {fleet.client.place.token()}",
            "Content-Type": "application/octet-stream",
            HEADER_LENGTH: str(length),
        }
        self.target = Target(f"{fleet.client.place.url}/v2/models/{MODEL}/infer", headers, body)
        self._pool = Pool(self.target.url, headers)
        self._said: dict[int, bytes] = {}

    async def __call__(self, number: int) -> bool:
        try:
            response = await self._pool.post(self.target.body)
        except (OSError, asyncio.IncompleteReadError) as error:
            self._said.setdefault(0, repr(error).encode())
            return False
        if response.status != 200:
            self._said.setdefault(response.status, response.body)
        return response.status == 200

    def forget(self) -> None:
        self._said.clear()

    def first(self) -> str:
        """The first answer of each kind that was not good."""
        return "; ".join(f"{status}: {body[:200]!r}" for status, body in self._said.items())

    async def close(self) -> None:
        await self._pool.close()


class Overload(NamedTuple):
    steady: list[Answered]
    overload: list[Answered]
    crashes: int
    growth_mb: float
    peak_mb: float
    recovery_s: float


def figures(folder: Path, quick: bool) -> list[Figure]:
    with Fleet(folder, ("--broker", "embedded")) as fleet:
        for name in DEVICES:
            fleet.add_agent(name)
        versions = [fleet.push(MODEL, variant(dscnn(), number)) for number in range(2)]
        fleet.roll_out(MODEL, versions[0])
        return asyncio.run(_all(fleet, versions, quick))


async def _all(fleet: Fleet, versions: list[int], quick: bool) -> list[Figure]:
    asker = Asker(fleet)
    try:
        await measure.closed_loop(asker, 1.0, CALLERS)
        overload = await _overload(fleet, asker, quick)
        rate = _rate(overload.steady) / 2
        found = _of_overload(overload)
        found.append(await _swaps(fleet, asker, versions, 1 if quick else SWAPS, rate))
        found.append(await _kill(fleet, asker, QUICK_S if quick else LOAD_S, rate))
        return found
    finally:
        await asker.close()


async def _overload(fleet: Fleet, asker: Asker, quick: bool) -> Overload:
    target = asker.target
    steady = await asyncio.to_thread(hey.load, target, CALLERS, QUICK_S if quick else STEADY_S, fleet.folder)
    pids = _pids(fleet)
    before = measure.pss_mb(pids)
    rate = OVERLOAD * _rate(steady)
    with measure.Peak(lambda: measure.pss_mb(pids), every_s=1.0) as peak:
        seconds = QUICK_S if quick else OVERLOAD_S
        overload = await asyncio.to_thread(hey.load, target, CROWD, seconds, fleet.folder, rate)
    ended = time.monotonic()
    recovered = await _recovered(asker, 2 * _p99_ms(steady) / 1000) - ended
    await asyncio.sleep(2)  # What was in flight for the log is written.
    growth = measure.pss_mb(pids) - before
    crashes = len(set(pids) - set(_pids(fleet)))
    return Overload(steady, overload, crashes, growth, peak.growth, recovered)


def _rate(answers: list[Answered]) -> float:
    """Good answers per second."""
    return sum(answer.status == 200 for answer in answers) / max(answer.at for answer in answers)


def _p99_ms(answers: list[Answered]) -> float:
    """Of the good ones."""
    return measure.percentile((answer.latency for answer in answers if answer.status == 200), 0.99) * 1000


def _pids(fleet: Fleet) -> list[int]:
    return [pid for program in (fleet.controller, *fleet.agents.values()) for pid in program.pids]


async def _recovered(asker: Asker, limit_s: float) -> float:
    """When answers had become good and quick again: the beginning of a row of them."""
    row: list[float] = []
    until = time.monotonic() + PATIENCE_S
    while len(row) < _SETTLED and time.monotonic() < until:
        began = time.monotonic()
        good = await asker(0)
        row = [*row, began] if good and time.monotonic() - began <= limit_s else []
        await asyncio.sleep(0.02)
    return row[0] if row else float("inf")


def _of_overload(seen: Overload) -> list[Figure]:
    statuses = Counter(answer.status for answer in seen.overload)
    p99, steady = _p99_ms(seen.overload), _p99_ms(seen.steady)
    offered = len(seen.overload) / max(answer.at for answer in seen.overload)
    refused = sum(statuses[status] for status in _REFUSED)
    failed = sum(statuses.values()) - refused - statuses[200]
    note = (
        f"p99 {p99:.1f} ms of {statuses[200]:,} accepted, {steady:.1f} ms with {CALLERS} callers before; "
        f"{offered:,.0f} a second offered, {_rate(seen.steady):,.0f} is capacity; {refused:,} refused"
    )
    return [
        at_most("overload_p99_ratio", p99 / steady, 2, note=note),
        Figure("overload_goodput_share", _rate(seen.overload) / _rate(seen.steady), note="of capacity"),
        Figure("overload_failed", failed, "", "0", failed == 0, "neither answered nor refused", always=True),
        Figure("overload_crashes", seen.crashes, "", "0", seen.crashes == 0, always=True),
        Figure("overload_memory_growth_mb", seen.growth_mb, "MB", note=f"{seen.peak_mb:.1f} MB at its peak; all PSS"),
        at_most("overload_recovery_s", seen.recovery_s, 5, "s", f"until {_SETTLED} quick answers in a row begin"),
    ]


async def _kill(fleet: Fleet, asker: Asker, seconds: float, rate: float) -> Figure:
    """One of three agents, with all its processes, at half of what the fleet can do."""
    asker.forget()
    stop = asyncio.Event()
    load = asyncio.create_task(measure.open_loop(asker, rate, stop))
    await asyncio.sleep(seconds / 4)
    for pid in fleet.agents[DEVICES[0]].pids:
        os.kill(pid, signal.SIGKILL)
    await asyncio.sleep(3 * seconds / 4)
    stop.set()
    return _failed("kill_failed_answers", await load, asker, f"{DEVICES[0]} killed, {rate:,.0f} requests a second")


async def _swaps(fleet: Fleet, asker: Asker, versions: list[int], count: int, rate: float) -> Figure:
    """On all three agents at once, again and again, at half of what the fleet can do."""
    asker.forget()
    stop = asyncio.Event()
    load = asyncio.create_task(measure.open_loop(asker, rate, stop))
    for number in range(count):
        await asyncio.sleep(1)
        await asyncio.to_thread(fleet.roll_out, MODEL, versions[(number + 1) % 2])
    await asyncio.sleep(1)
    stop.set()
    return _failed("swap_failed_answers", await load, asker, f"{count} swaps on each, {rate:,.0f} requests a second")


def _failed(key: str, samples: list[Sample], asker: Asker, how: str) -> Figure:
    failed = sum(not sample.ok for sample in samples)
    longest = max(sample.latency for sample in samples) * 1000
    note = f"of {len(samples):,}; {how}; the longest took {longest:.0f} ms {asker.first()}"
    return Figure(key, failed, "", "0", failed == 0, note.strip(), always=True)
