"""The ways of others beside ours: the same two models in turns, the same steady stream, one after the other in one run.

- `inline`: the new model is built on the thread that serves, while requests wait (`plain_server`).
- `pause`: stop serving, load, resume; requests are refused meanwhile (`plain_server`).
- `mlserver`: MLServer, and its repository's load call after the model's file was replaced (the way without version
  numbers: it builds the new model before it lets the old one go, which is the gentler of its two).
- `ours`: the agent of `stream`, asked over MQTT.

The first three are asked over HTTP with JSON, as MLServer takes it, by this process. "During" is from the load call to
its answer; before each lies a control window of the same length. Each answer says by its digest which file gave it, and
its scores must be those of that file: a load call that answers 200 and swaps nothing shows.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from agent.runtime import Array, load, predict
from tests.benchmarks import measure
from tests.benchmarks.http import Pool
from tests.benchmarks.measure import Sample, Span
from tests.benchmarks.results import Figure
from tests.benchmarks.swap import served, stream
from tests.benchmarks.swap.pair import FEATURES, LARGE, SMALL, network
from tests.builders import RUNTIMES

RATE = 100.0
"""Half of what `stream` asks: MLServer takes about 5 ms per request, and its queue is not what is compared."""
SWAPS, QUICK_SWAPS = 400, 10
ANSWER_S = 2.0
"""Within which an answer shows what a load call did."""
OURS, QUICK_OURS = 100, 4
_JSON = {"Content-Type": "application/json"}


class Recorded(NamedTuple):
    samples: list[Sample]
    swaps: list[Span]
    shown: str
    """What showed that the new model serves."""
    causes: Counter[str]
    """Why requests failed."""


def figures(folder: Path, quick: bool) -> list[Figure]:
    count = QUICK_SWAPS if quick else SWAPS
    contents = [network(hidden) for hidden in (SMALL, LARGE)]
    found: list[Figure] = []
    for way in ("inline", "pause"):
        with served.PlainServer(way, folder / way, contents[0]) as server:
            found += _figures(way, asyncio.run(_record(server, contents, count)))
    try:
        environment = served.mlserver_environment(folder / "environment")
    except served.NotHereError as error:
        found.append(Figure("mlserver_swaps", 0, note=f"not measured: {error}"))
    else:
        with served.MLServer(environment, folder / "mlserver", contents[0]) as server:
            found += _figures("mlserver", asyncio.run(_record(server, contents, count)))
    return found + _ours(folder / "ours", QUICK_OURS if quick else OURS)


def _ours(folder: Path, count: int) -> list[Figure]:
    recorded = stream.record(folder, count, RATE)
    return _figures(
        "ours",
        Recorded(recorded.samples, recorded.swaps, "all committed, by their swap records", Counter()),
        recorded.asked,
    )


async def _record(server: served.Server, contents: Sequence[bytes], count: int) -> Recorded:
    async with _Asker(server.url, contents) as asker:
        stop = asyncio.Event()
        asking = asyncio.create_task(measure.open_loop(asker.ask, RATE, stop))
        await asyncio.sleep(0.5)
        swaps: list[Span] = []
        swapped = 0
        for number in range(1, count + 1):
            await asyncio.sleep(_quiet_s(swaps))
            content = contents[number % 2]
            _replace(server.file, content)
            began = time.monotonic()
            await asker.load()
            swaps.append(Span(began, time.monotonic()))
            swapped += await asker.is_answered_by(content)
        await asyncio.sleep(0.2)
        stop.set()
        return Recorded(await asking, swaps, f"after {swapped} of them the new model answered", asker.causes)


def _quiet_s(swaps: Sequence[Span]) -> float:
    """Long enough for a control window as long as the next swap can be."""
    return 0.15 + 1.5 * max((swap.length for swap in swaps[-20:]), default=0.3)


def _replace(file: Path, content: bytes) -> None:
    beside = file.with_suffix(".next")
    beside.write_bytes(content)
    os.replace(beside, file)


class _Asker:
    """Asks for one row, and knows what each of the models answers to it."""

    def __init__(self, url: str, contents: Sequence[bytes]) -> None:
        row = np.random.default_rng(0).uniform(-2, 2, (1, FEATURES)).astype(np.float32)
        given = {"name": "x", "shape": row.shape, "datatype": "FP32", "data": row.ravel().tolist()}
        self._body = msgspec.json.encode({"inputs": [given]})
        self._infer = Pool(f"{url}/v2/models/{served.MODEL}/infer", _JSON)
        self._load = Pool(f"{url}/v2/repository/models/{served.MODEL}/load", _JSON)
        self._right = {_digest(content): _scores(content, row) for content in contents}
        self._awaited, self._came = "", asyncio.Event()
        self.causes: Counter[str] = Counter()

    async def __aenter__(self) -> _Asker:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._infer.close()
        await self._load.close()

    async def ask(self, _: int) -> bool:
        """Is there a right answer by one of the models?"""
        try:
            response = await self._infer.post(self._body)
        except (OSError, asyncio.IncompleteReadError) as error:
            self.causes[type(error).__name__] += 1
            return False
        if response.status != 200:
            self.causes[str(response.status)] += 1
            return False
        told = msgspec.json.decode(response.body)
        digest, scores = told["parameters"]["artifact"], np.asarray(told["outputs"][0]["data"])
        if self._nearest(scores) != digest:
            self.causes["the scores of another model"] += 1
            return False
        if digest == self._awaited:
            self._came.set()
        return True

    async def load(self) -> None:
        response = await self._load.post(b"{}")
        if response.status != 200:
            raise RuntimeError(f"the load call is answered {response.status}: {response.body[:300]!r}")

    async def is_answered_by(self, content: bytes) -> bool:
        """Does an answer that comes from now on come from it?"""
        self._awaited, self._came = _digest(content), asyncio.Event()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._came.wait(), ANSWER_S)
        return self._came.is_set()

    def _nearest(self, scores: Array) -> str:
        """Runtimes round the input by a step to either side; two models are further apart than that."""
        return min(self._right, key=lambda digest: float(np.abs(self._right[digest] - scores).max()))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _scores(content: bytes, row: Array) -> Array:
    scores: Array = predict(load(content, runtimes=RUNTIMES), {"x": row})["scores"].ravel()
    return scores


def _figures(way: str, recorded: Recorded, asked: Sequence[float] = ()) -> list[Figure]:
    windows = measure.controls(recorded.swaps, asked or [swap.start for swap in recorded.swaps])
    samples = measure.as_retried(recorded.samples)
    during, control = (measure.in_flight(samples, spans) for spans in (recorded.swaps, windows))
    p99, calm = measure.milliseconds(during, 0.99), measure.milliseconds(control, 0.99)
    gap, calm_gap = (measure.longest_gap(recorded.samples, spans) * 1000 for spans in (recorded.swaps, windows))
    causes = "".join(f", {cause} {times}" for cause, times in recorded.causes.most_common())
    note = f"p99 {p99:.1f} ms during ({len(during)} requests), {calm:.1f} ms in control windows ({len(control)})"
    lengths = [swap.length * 1000 for swap in recorded.swaps]
    return [
        Figure(f"{way}_swaps", len(lengths), note=recorded.shown),
        Figure(
            f"{way}_failed",
            sum(not sample.ok for sample in recorded.samples),
            note=f"of {len(recorded.samples)} at {RATE:g} a second{causes}",
        ),
        Figure(f"{way}_p99_ratio", p99 / calm, note=note),
        Figure(
            f"{way}_gap_ms", gap, "ms", note=f"longest time without an answer; {calm_gap:.1f} ms in control windows"
        ),
        Figure(f"{way}_swap_length_ms", measure.percentile(lengths, 0.5), "ms", note="median"),
    ]
