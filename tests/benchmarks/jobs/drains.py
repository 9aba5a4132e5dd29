"""Devices are drained one after the other under requests and a job, killed as soon as they may be switched off, and
put back: what fails of that?"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from agent.runtime import load
from controller import replies
from controller.client.rest import Client
from tests.benchmarks import measure
from tests.benchmarks.fleet import Fleet
from tests.benchmarks.load import Requests
from tests.benchmarks.measure import Sample, open_loop
from tests.benchmarks.program import PATIENCE_S, POLL_S, ProgramError
from tests.benchmarks.results import Figure
from tests.builders import RUNTIMES, dscnn, file_ref

AGENTS = ("pi-1", "pi-2", "pi-3")
MODEL = "keywords"
DRAINS, QUICK_DRAINS = 50, 5
RATE = 50.0
ROWS, SHARD_ROWS = 20_000, 50
QUIET_S = 0.5
"""Between two drains: all devices work."""


@dataclass
class Watched:
    """What was done meanwhile."""

    samples: list[Sample] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    jobs: list[replies.Job] = field(default_factory=list)
    drained_s: list[float] = field(default_factory=list)
    moved: int = 0


def figures(folder: Path, quick: bool) -> list[Figure]:
    content = dscnn()
    watched = Watched()
    with Fleet(folder / "fleet") as fleet:
        for name in AGENTS:
            fleet.add_agent(name)
        fleet.roll_out(MODEL, fleet.push(MODEL, content))
        with _asked(fleet, content, watched), _computed(fleet, folder, content, watched):
            for number in range(QUICK_DRAINS if quick else DRAINS):
                time.sleep(QUIET_S)
                _drain(fleet, AGENTS[number % len(AGENTS)], watched)
            time.sleep(QUIET_S)
    return _evaluate(watched)


def _drain(fleet: Fleet, name: str, watched: Watched) -> None:
    """Until it may be switched off; then it is, without a word, and comes back."""
    began = time.monotonic()
    duty = fleet.client.cordon_device(name, move=True)
    watched.moved += duty.moved
    while duty.state == "draining":
        time.sleep(POLL_S)
        duty = fleet.client.duty(name)
    watched.drained_s.append(time.monotonic() - began)
    program = fleet.agents[name]
    for process in program.pids[::-1]:
        _kill(process)
    program.process.wait()
    _until(lambda: not fleet.client.device(name).online, f"{name} going")
    fleet.start_agent(name)
    fleet.client.uncordon_device(name)
    _until(lambda: fleet.serves(name, MODEL), f"{name} serving again")


def _until(holds: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > until:
            raise ProgramError(f"{what} did not happen")
        time.sleep(POLL_S)


@contextmanager
def _asked(fleet: Fleet, content: bytes, watched: Watched) -> Iterator[None]:
    """Requests by REST from a thread of their own, as long as the block runs."""
    requests = Requests(fleet.client, MODEL, content, {file_ref(content).digest})
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    async def ask() -> None:
        async with requests:
            watched.samples += await open_loop(requests, RATE, stop)

    thread = threading.Thread(target=lambda: loop.run_until_complete(ask()))
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
        watched.refused = requests.refused


@contextmanager
def _computed(fleet: Fleet, folder: Path, content: bytes, watched: Watched) -> Iterator[None]:
    """One job after the other, as long as the block runs; the last one is waited for."""
    spec = load(content, runtimes=RUNTIMES).inputs[0]
    rows = np.random.default_rng(0).normal(0, 1, (ROWS, *spec.shape)).astype(np.float32)
    digest = fleet.put_array(rows, folder / "rows.npy")
    stop = threading.Event()

    def compute() -> None:
        with Client(fleet.client.place) as client:
            while not stop.is_set():
                job = client.start_job(MODEL, digest, shard_rows=SHARD_ROWS)
                while job.state in ("queued", "running"):
                    time.sleep(0.1)
                    job = client.job(job.id)
                watched.jobs.append(job)

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _kill(pid: int) -> None:
    import psutil

    try:
        psutil.Process(pid).kill()
    except psutil.NoSuchProcess:
        return


def _evaluate(watched: Watched) -> list[Figure]:
    failed = sum(not sample.ok for sample in watched.samples)
    whole = [job for job in watched.jobs if job.state == "done" and not job.lost and not job.quarantined]
    count = len(watched.drained_s)
    note = f"of {len(watched.samples)} at {RATE:g} a second; {count} drains, each device killed when it was free"
    if watched.refused:
        note += f"; {watched.refused[0]}"
    broken = len(watched.jobs) - len(whole)
    return [
        Figure("drains", count, note=f"{len(AGENTS)} agents; {watched.moved} shards moved"),
        Figure("drain_failed", failed, "", "0", failed == 0, note, always=True),
        Figure("drain_jobs_broken", broken, "", "0", broken == 0, f"of {len(watched.jobs)} jobs", always=True),
        Figure("drain_s", measure.percentile(watched.drained_s, 0.5), "s", note="until it may be switched off; median"),
        Figure("drain_longest_s", max(watched.drained_s), "s"),
        Figure("drain_p99_ms", measure.milliseconds(watched.samples, 0.99), "ms", note="of all requests"),
    ]
