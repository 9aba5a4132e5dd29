"""One of four agents loses half of its processor to a real process: how soon its share follows, and returns.

Shares are of the rows, and of the requests, that were answered in the last seconds; real models, real agents.
"""

from __future__ import annotations

import asyncio
import re
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from agent.runtime import load
from tests.benchmarks.fleet import Fleet
from tests.benchmarks.jobs.slices import Slices
from tests.benchmarks.load import Requests
from tests.benchmarks.measure import closed_loop
from tests.benchmarks.models import heavy
from tests.benchmarks.results import Figure, at_most
from tests.builders import RUNTIMES, file_ref

AGENTS = ("pi-1", "pi-2", "pi-3", "pi-4")
SLOWED = AGENTS[0]
MODEL, LAYERS = "heavy", 2
SHARE = 0.2
SHARD_S = 0.1
WINDOW_S = 3.0
BEFORE_S, DURING_S, AFTER_S = 10.0, 12.0, 30.0
QUICK_S = (4.0, 6.0, 6.0)
LANES = 8
# With half of one of four processors gone, a fair share is 4/7 of what it was.
FALLEN, RETURNED = 0.7, 0.9
_DEVICE = re.compile(rb'"device": ?"([^"]+)"')


@dataclass
class Shares:
    """How much each device had done, moment by moment."""

    moments: list[float] = field(default_factory=list)
    seen: list[dict[str, int]] = field(default_factory=list)

    def add(self, done: dict[str, int]) -> None:
        self.moments.append(time.monotonic())
        self.seen.append(done)

    def at(self, moment: float) -> float:
        """The slowed device's share of what was done in the window that ends then."""
        end, start = self._done(moment), self._done(moment - WINDOW_S)
        done = {name: end.get(name, 0) - start.get(name, 0) for name in AGENTS}
        return done[SLOWED] / max(1, sum(done.values()))

    def first(self, begin: float, end: float, holds: Callable[[float], bool]) -> float:
        """Seconds after `begin` until a share for which it holds; all the time there was, and more, if none is."""
        moments = [at for at in self.moments if begin <= at <= end]
        return next((at - begin for at in moments if holds(self.at(at))), 2 * (end - begin))

    def _done(self, moment: float) -> dict[str, int]:
        number = bisect_right(self.moments, moment)
        return self.seen[number - 1] if number else {}


@dataclass
class Phases:
    """When the other process began and ended, and when the watch ended."""

    shares: Shares
    slowed: float
    well: float
    end: float

    def figures(self, kind: str, note: str) -> list[Figure]:
        shares = self.shares
        before = shares.at(self.slowed)
        fell = shares.first(self.slowed, self.well, lambda share: share <= FALLEN * before)
        back = shares.first(self.well, self.end, lambda share: share >= RETURNED * before)
        during, after = shares.at(self.well), shares.at(self.end)
        told = (
            f"{kind}: {before:.1%} before, {during:.1%} at its end, {after:.1%} at the end; fair 25 %, 14.3 %; {note}"
        )
        prefix = "" if kind == "rows" else f"{kind}_"
        return [
            at_most(f"{prefix}rebalance_s", fell, 10, "s", told),
            at_most(f"{prefix}return_s", back, 30, "s", f"to {RETURNED:.0%} of the share that it had"),
        ]


def figures(folder: Path, quick: bool) -> list[Figure]:
    content = heavy(LAYERS)
    lengths = QUICK_S if quick else (BEFORE_S, DURING_S, AFTER_S)
    with Fleet(folder / "fleet") as fleet, Slices(AGENTS, SHARE) as slices:
        for name in AGENTS:
            fleet.add_agent(name)
        fleet.roll_out(MODEL, fleet.push(MODEL, content))
        for name in AGENTS:
            slices.take(name, fleet.agents[name].pids)
        row_s = _row_s(content) / (SHARE if "group" in slices.how else 1.0)
        rows = _job(fleet, folder, content, row_s, slices, lengths)
        requests = _requests(fleet, content, slices, lengths)
    return rows.figures("rows", slices.how) + requests.figures("requests", f"{LANES} callers")


def _row_s(content: bytes) -> float:
    """Seconds of a bare row on a whole core."""
    model = load(content, runtimes=RUNTIMES)
    spec = model.inputs[0]
    row = {spec.name: np.zeros((1, *spec.shape), spec.dtype)}
    taken = []
    for _ in range(20):
        began = time.thread_time()
        model.invoke(row)
        taken.append(time.thread_time() - began)
    return sorted(taken)[10]


def _job(
    fleet: Fleet, folder: Path, content: bytes, row_s: float, slices: Slices, lengths: tuple[float, ...]
) -> Phases:
    spec = load(content, runtimes=RUNTIMES).inputs[0]
    # Enough for twice the time; what is left when the watch ends is cancelled.
    count = int(2 * len(AGENTS) * sum(lengths) / row_s)
    rows = np.random.default_rng(0).integers(-100, 100, (count, *spec.shape)).astype(spec.dtype)
    job = fleet.client.start_job(
        MODEL, fleet.put_array(rows, folder / "rows.npy"), shard_rows=round(SHARD_S / row_s) or 1
    )
    shares = Shares()

    def look(until: float) -> None:
        while time.monotonic() < until:
            shares.add({name: share.rows for name, share in fleet.client.job(job.id).devices.items()})
            time.sleep(0.2)

    phases = _phases(shares, slices, lengths, look)
    fleet.client.cancel_job(job.id)
    return phases


def _requests(fleet: Fleet, content: bytes, slices: Slices, lengths: tuple[float, ...]) -> Phases:
    shares, done = Shares(), dict.fromkeys(AGENTS, 0)

    def answered(body: bytes) -> None:
        found = _DEVICE.search(body)
        if found is not None:
            done[found[1].decode()] += 1
            shares.add(dict(done))

    async def ask() -> None:
        requests = Requests(fleet.client, MODEL, content, {file_ref(content).digest}, answered=answered)
        async with requests:
            await closed_loop(requests, sum(lengths), LANES)
        if requests.refused:
            raise RuntimeError(f"{len(requests.refused)} requests failed: {requests.refused[0]}")

    async def both() -> Phases:
        asking = asyncio.create_task(ask())
        phases = await asyncio.to_thread(_phases, shares, slices, lengths, _sleep_until)
        await asking
        return phases

    return asyncio.run(both())


def _phases(shares: Shares, slices: Slices, lengths: tuple[float, ...], watch: Callable[[float], None]) -> Phases:
    before, during, after = lengths
    watch(time.monotonic() + before)
    slowed = time.monotonic()
    end = slices.hog(SLOWED)
    watch(slowed + during)
    well = time.monotonic()
    end()
    watch(well + after)
    return Phases(shares, slowed, well, time.monotonic())


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))
