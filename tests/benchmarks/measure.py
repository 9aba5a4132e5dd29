"""What every benchmark measures with: load, windows, memory and processor time of process trees, bare work, the host.

All moments are seconds of `time.monotonic()`, which every process of a Linux host shares.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import platform
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import psutil

MEGABYTE = 1024 * 1024


class MeasureError(RuntimeError):
    """A figure that cannot be had from what was recorded."""


# -- requests -----------------------------------------------------------------------------------------------------


class Sample(NamedTuple):
    """One request. `latency` counts from the moment at which it was due, so a stalled generator hides nothing."""

    due: float
    latency: float
    ok: bool


class Span(NamedTuple):
    """A stretch of time."""

    start: float
    end: float

    @property
    def length(self) -> float:
        return self.end - self.start


Send = Callable[[int], Awaitable[bool]]


async def open_loop(send: Send, rate: float, stop: asyncio.Event) -> list[Sample]:
    """Start `rate` requests per second, however long earlier ones take, until `stop` is set and all have ended."""
    samples: list[Sample] = []
    running: set[asyncio.Task[None]] = set()

    async def one(number: int, due: float) -> None:
        ok = await send(number)
        samples.append(Sample(due, time.monotonic() - due, ok))

    start, number = time.monotonic(), 0
    while not stop.is_set():
        due = start + number / rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        task = asyncio.create_task(one(number, due))
        running.add(task)
        task.add_done_callback(running.discard)
        number += 1
    await asyncio.gather(*running)
    return sorted(samples)


async def closed_loop(send: Send, seconds: float, lanes: int) -> list[Sample]:
    """`lanes` callers, each asking again as soon as it has its answer: the most that a service gives."""
    samples: list[Sample] = []
    until = time.monotonic() + seconds

    async def lane(first: int) -> None:
        number = first
        while (due := time.monotonic()) < until:
            ok = await send(number)
            samples.append(Sample(due, time.monotonic() - due, ok))
            number += lanes

    await asyncio.gather(*(lane(first) for first in range(lanes)))
    return sorted(samples)


# -- windows ------------------------------------------------------------------------------------------------------


def in_flight(samples: Iterable[Sample], spans: Sequence[Span]) -> list[Sample]:
    """The requests that were under way at any moment of the spans, each once."""
    return [s for s in samples if any(s.due < span.end and s.due + s.latency > span.start for span in spans)]


def longest_gap(samples: Iterable[Sample], spans: Sequence[Span]) -> float:
    """The longest time without an answer that lies in any of the spans, if only in part; 0 where there is none."""
    answered = sorted(s.due + s.latency for s in samples if s.ok)
    gaps = [Span(*pair) for pair in itertools.pairwise(answered)]
    return max(
        (g.length for g in gaps if any(g.start < span.end and g.end > span.start for span in spans)), default=0.0
    )


def as_retried(samples: Iterable[Sample]) -> list[Sample]:
    """By moment; a failed request lasts until the first answer to one that was due later: its asker tries again."""
    found: list[Sample] = []
    answered = math.inf
    for sample in sorted(samples, reverse=True):
        if sample.ok:
            answered = min(answered, sample.due + sample.latency)
        found.append(sample if sample.ok else sample._replace(latency=max(sample.latency, answered - sample.due)))
    return found[::-1]


def controls(swaps: Sequence[Span], asked: Sequence[float], gap: float = 0.05) -> list[Span]:
    """One control window per swap: as long as the swap and ending `gap` before it was asked for, in quiet time only.

    `asked` holds when each swap was ordered: what it disturbs (delivery too) must not stand in its own control.
    """
    found = []
    quiet_since = -math.inf
    for swap, moment in zip(swaps, asked, strict=True):
        control = Span(moment - gap - swap.length, moment - gap)
        if control.start < quiet_since:
            raise MeasureError(
                f"{control.start - quiet_since:.3f} s of quiet missing before a swap: leave more time between them"
            )
        found.append(control)
        quiet_since = swap.end
    return found


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    if not ordered:
        raise MeasureError("no values: nothing to take a percentile of")
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def milliseconds(samples: Iterable[Sample], share: float) -> float:
    """A percentile of the latencies, in milliseconds."""
    return percentile((sample.latency for sample in samples), share) * 1000


# -- processes ----------------------------------------------------------------------------------------------------


def tree(pid: int) -> list[int]:
    """The process and all its descendants that live now."""
    try:
        process = psutil.Process(pid)
        return [pid, *(child.pid for child in process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def pss_mb(pids: Iterable[int]) -> float:
    """Proportional set size in MB: shared pages are split among those who share them. Ended processes count nothing."""
    return sum(map(_pss_kb, pids)) / 1024


def _pss_kb(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return parse_pss(text)


def parse_pss(rollup: str) -> int:
    """The kB on the `Pss:` line of a smaps_rollup; 0 for a process that has no memory any more."""
    for line in rollup.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def others_mapping(library: str, pids: Iterable[int]) -> int:
    """How many processes outside `pids` map a file whose path contains `library`: they lower the share of `pids`."""
    others = set(psutil.pids()) - set(pids)
    return sum(library in _maps(pid) for pid in others)


def _maps(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""


def cpu_s(pids: Iterable[int]) -> float:
    """User and system seconds of the processes so far, with those of children that ended and were waited for."""
    total = 0.0
    for pid in pids:
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


class Peak:
    """Samples a memory figure in the background while the block runs; `growth` is the peak over the first value.

    Looking takes a thirtieth of one core at most: of large processes it would otherwise slow what is measured.
    """

    def __init__(self, sample: Callable[[], float], every_s: float = 0.03) -> None:
        self._sample = sample
        self._every = every_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.first = 0.0
        self.highest = 0.0

    @property
    def growth(self) -> float:
        return self.highest - self.first

    def __enter__(self) -> Peak:
        self.first = self.highest = self._sample()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        self.highest = max(self.highest, self._sample())

    def _run(self) -> None:
        wait = self._every
        while not self._done.wait(wait):
            began = time.thread_time()
            self.highest = max(self.highest, self._sample())
            wait = max(self._every, 30 * (time.thread_time() - began))


class ChildWatch:
    """Notes when children of a process appear and disappear: a fork or an exit, seen from outside, to 2 ms."""

    def __init__(self, pid: int, every_s: float = 0.002) -> None:
        self._path = Path(f"/proc/{pid}/task/{pid}/children")
        self._every = every_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._born: dict[int, float] = {}
        self._gone: dict[int, float] = {}

    def __enter__(self) -> ChildWatch:
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def lives(self) -> list[Span]:
        """One span per child ever seen, by birth; `end` is infinite for one that still lives."""
        return sorted(Span(born, self._gone.get(pid, math.inf)) for pid, born in list(self._born.items()))

    def _run(self) -> None:
        while not self._done.wait(self._every):
            self._look()

    def _look(self) -> None:
        now = time.monotonic()
        try:
            alive = {int(word) for word in self._path.read_text(encoding="ascii").split()}
        except (FileNotFoundError, ProcessLookupError):
            alive = set()
        for pid in alive - self._born.keys():
            self._born[pid] = now
        for pid in self._born.keys() - alive - self._gone.keys():
            self._gone[pid] = now


def swap_spans(lives: Sequence[Span]) -> list[Span]:
    """From the fork of each candidate to the exit of the worker that it replaced, given the lives of all workers.

    Workers replace each other in the order of their birth; the last one still serves.
    """
    return [Span(new.start, old.end) for old, new in itertools.pairwise(lives) if math.isfinite(old.end)]


# -- the host -----------------------------------------------------------------------------------------------------


def host_facts() -> dict[str, str | float]:
    """What a reader needs to judge a figure: processor, memory, kernel, versions, and how busy the host was."""
    libraries = ("ai-edge-litert", "iotcore", "msgspec", "numpy", "paho-mqtt", "lepta")
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1024**3, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_1min": round(os.getloadavg()[0], 2),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        **{d.metadata["Name"]: d.version for d in metadata.distributions() if d.metadata["Name"] in libraries},
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
