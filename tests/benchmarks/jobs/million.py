"""A million rows, more than a gigabyte, through two agents: how much memory does the controller need?"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from agent.runtime import load, predict
from tests.benchmarks import measure
from tests.benchmarks.fleet import Fleet
from tests.benchmarks.results import Figure, at_most
from tests.builders import CLASSES, RUNTIMES, dense

MODEL, FEATURES = "wide", 260
ROWS, QUICK_ROWS = 1_000_000, 50_000
CHECKED = 2000
_BLOCK = 10_000


def figures(folder: Path, quick: bool) -> list[Figure]:
    count = QUICK_ROWS if quick else ROWS
    content = dense(np.random.default_rng(7).normal(size=(CLASSES, FEATURES)), np.zeros(CLASSES))
    with Fleet(folder) as fleet:
        for name in ("pi-1", "pi-2"):
            fleet.add_agent(name)
        fleet.roll_out(MODEL, fleet.push(MODEL, content))
        path = folder / "rows.npy"
        size = _write(path, count)
        digest = fleet.client.put_file(path).digest
        controller = fleet.controller.process.pid
        with measure.Peak(lambda: measure.pss_mb([controller]), every_s=0.2) as peak:
            job = fleet.compute(MODEL, digest, 600)
        result = folder / "result.npz"
        fleet.client.job_result(job.id, result)
    wrong = _wrong(content, path, result, count)
    computed = sum(share.rows for share in job.devices.values())
    assert job.makespan_s is not None
    note = f"{size / 1e9:.2f} GB of input, {job.shards} shards; from {peak.first:.0f} to {peak.highest:.0f} MB"
    return [
        Figure("million_rows", job.rows, note=f"{job.rows / job.makespan_s:.0f} a second"),
        Figure("million_rows_makespan_s", job.makespan_s, "s"),
        at_most("million_rows_controller_growth_mb", peak.growth, 200, "MB", note),
        Figure("million_rows_lost", count - computed, "", "0", computed == count, always=True),
        Figure("million_rows_wrong", wrong, "", "0", wrong == 0, f"of {CHECKED} that are compared", always=True),
    ]


def _write(path: Path, count: int) -> int:
    """Random rows as .npy, block by block; returns the bytes."""
    random = np.random.default_rng(0)
    array = np.lib.format.open_memmap(path, "w+", np.float32, (count, FEATURES))
    for first in range(0, count, _BLOCK):
        array[first : first + _BLOCK] = random.standard_normal((min(_BLOCK, count - first), FEATURES), np.float32)
    array.flush()
    return array.nbytes


def _wrong(content: bytes, rows: Path, result: Path, count: int) -> int:
    """Rows whose outputs are not, bit by bit, what a single process computes."""
    chosen = np.sort(np.random.default_rng(1).choice(count, CHECKED, replace=False))
    x = np.load(rows, mmap_mode="r")[chosen]
    [want] = predict(load(content, runtimes=RUNTIMES), {"x": np.ascontiguousarray(x)}).values()
    with np.load(result) as table:
        got = table["output:scores"][chosen]
    return int((got != want).any(axis=1).sum())
