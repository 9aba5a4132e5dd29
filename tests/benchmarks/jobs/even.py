"""A job of DS-CNN on two agents, beside multiprocessing, joblib and Dask, all held against bare processes in one run.

"Ideal" is the same work by bare processes, one per core (`tests.benchmarks.bare`), before and after each of them.
"""

from __future__ import annotations

import math
import subprocess
from importlib import metadata
from pathlib import Path

import numpy as np

from agent.contract import children
from agent.runtime import load
from controller.settings import Limits
from tests.benchmarks import environments
from tests.benchmarks.bare import bare_work
from tests.benchmarks.fleet import Fleet
from tests.benchmarks.jobs.peers import WAYS
from tests.benchmarks.results import Figure, at_most
from tests.builders import RUNTIMES, dscnn

MODEL = "keywords"
BARE_CPU_S, QUICK_CPU_S = 130.0, 6.0
"""Of bare work: more than 60 s on two cores."""
_PACKAGES = tuple(f"{name}=={metadata.version(name)}" for name in ("ai-edge-litert", "numpy"))
_PEERS = ("dask[distributed]==2026.8.0", "joblib==1.6.0", *_PACKAGES)
_PATIENCE = 6
_HEADER = 4096
"""More than the header of a .npy file takes."""


def figures(folder: Path, quick: bool) -> list[Figure]:
    content = dscnn()
    model, rows = folder / "model.tflite", folder / "rows.npy"
    folder.mkdir(parents=True, exist_ok=True)
    model.write_bytes(content)
    count = _rows(content, model, rows, QUICK_CPU_S if quick else BARE_CPU_S)
    with Fleet(folder / "fleet") as fleet:
        for name in ("pi-1", "pi-2"):
            fleet.add_agent(name)
        fleet.roll_out(MODEL, fleet.push(MODEL, content))
        digest = fleet.client.put_file(rows).digest
        first = bare_work(model, rows, count // 2).wall_s
        job = fleet.compute(MODEL, digest, _PATIENCE * 2 * first + 30)
        second = bare_work(model, rows, count - count // 2).wall_s
    assert job.makespan_s is not None
    ideal_s = first + second
    shares = ", ".join(f"{name} {share.shards}" for name, share in sorted(job.devices.items()))
    note = f"{job.rows} rows, {job.shards} shards: {shares}; {job.bytes_moved / 1e6:.0f} MB moved"
    return [
        at_most("even_makespan_ratio", job.makespan_s / ideal_s, 1.10, note=note),
        Figure("even_makespan_s", job.makespan_s, "s"),
        Figure("even_ideal_s", ideal_s, "s", note="bare processes, one per core, half before and half after the job"),
        *_peers(model, rows, count // 2, second / (count - count // 2)),
    ]


def _peers(model: Path, rows: Path, count: int, row_s: float) -> list[Figure]:
    """`count` rows by each of the others, with bare work of half as many after each; before the first a row took
    `row_s`."""
    try:
        python = environments.python("pools", _PEERS)
    except environments.EnvironmentMissing as error:
        return [Figure("peers", 0, note=f"not measured: {error}")]
    found = []
    for way in WAYS:
        took = _peer(python, way, model, rows, count)
        after = bare_work(model, rows, count // 2).wall_s / (count // 2)
        ideal_s = count * (row_s + after) / 2
        found.append(Figure(f"{way}_makespan_ratio", took / ideal_s, note=f"{took:.1f} s, ideal {ideal_s:.1f} s"))
        row_s = after
    return found


def _rows(content: bytes, model: Path, rows: Path, cpu_s: float) -> int:
    """Write as many random rows as take `cpu_s` of bare processor time, or as one file may have; how many these are."""
    spec = load(content, runtimes=RUNTIMES).inputs[0]
    random = np.random.default_rng(0)
    np.save(rows, random.integers(-128, 128, (1000, *spec.shape), np.int8))
    most = (Limits().upload_bytes - _HEADER) // math.prod(spec.shape)
    count = min(most, int(cpu_s / (bare_work(model, rows, 4000).cpu_s / 4000)))
    np.save(rows, random.integers(-128, 128, (count, *spec.shape), np.int8))
    return count


def _peer(python: Path, way: str, model: Path, rows: Path, count: int) -> float:
    # Imported, and not run as a file: its functions travel to other processes by the module's name.
    started = "import peers, sys; peers.main(*sys.argv[1:])"
    command = [str(python), "-c", started, way, str(model), str(rows), str(count)]
    found_by = children.environment({"PYTHONPATH": str(Path(__file__).parent)})
    ended = subprocess.run(command, capture_output=True, text=True, env=found_by, check=False)
    if ended.returncode != 0:
        raise RuntimeError(f"{way} ended with status {ended.returncode}:\n{ended.stderr[-2000:]}")
    return float(ended.stdout.split()[-1])
