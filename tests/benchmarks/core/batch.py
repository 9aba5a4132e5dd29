"""A batch job on two agents against the same rows by bare processes, one per core, in the same run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from agent.runtime import load
from controller import replies
from tests.benchmarks.bare import bare_work
from tests.benchmarks.fleet import Fleet
from tests.benchmarks.models import heavy
from tests.benchmarks.results import Figure, at_most
from tests.builders import RUNTIMES, file_ref

MODEL = "heavy"
LAYERS = 20
BARE_CPU_S, QUICK_CPU_S = 120.0, 6.0
PATIENCE = 6
"""A job may take this many times as long as ideal before the benchmark gives up."""


def figures(folder: Path, quick: bool) -> list[Figure]:
    content = heavy(LAYERS)
    with Fleet(folder) as fleet:
        for name in ("pi-1", "pi-2"):
            fleet.add_agent(name)
        fleet.roll_out(MODEL, fleet.push(MODEL, content))
        model, rows = folder / "model.tflite", folder / "rows.npy"
        model.write_bytes(content)
        spec = load(content, runtimes=RUNTIMES).inputs[0]
        random = np.random.default_rng(0)
        count = _count(model, rows, spec.shape, QUICK_CPU_S if quick else BARE_CPU_S)
        np.save(rows, random.integers(-100, 100, (count, *spec.shape)).astype(spec.dtype))
        digest = fleet.client.put_file(rows).digest
        first = bare_work(model, rows, count // 2)
        job = fleet.compute(MODEL, digest, PATIENCE * 2 * first.wall_s)
        second = bare_work(model, rows, count - count // 2)
    return _evaluate(job, count, first.wall_s + second.wall_s, file_ref(content).digest)


def _count(model: Path, rows: Path, shape: tuple[int, ...], cpu_s: float) -> int:
    """How many rows take `cpu_s` of bare processor time here."""
    np.save(rows, np.zeros((20, *shape), np.int8))
    return int(cpu_s / (bare_work(model, rows, 60).cpu_s / 60))


def _evaluate(job: replies.Job, count: int, ideal_s: float, artifact: str) -> list[Figure]:
    assert job.makespan_s is not None
    if job.artifact != artifact or job.rows != count:
        raise RuntimeError(f"{job.rows} of {count} rows by {job.artifact[:12]}, expected {artifact[:12]}")
    shares = ", ".join(f"{name} {share.shards} shards" for name, share in sorted(job.devices.items()))
    return [
        at_most("batch_makespan_ratio", job.makespan_s / ideal_s, 1.25, note=f"{count} rows, {shares}"),
        Figure("batch_makespan_s", job.makespan_s, "s"),
        Figure("batch_ideal_s", ideal_s, "s", note="bare processes, one per core, half before and half after the job"),
        Figure("batch_bytes_moved_mb", job.bytes_moved / 1e6, "MB"),
    ]
