"""How much faster a job gets with more agents: real ones on this machine's cores, simulated ones that only sleep."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.benchmarks.bare import bare_work
from tests.benchmarks.fleet import Fleet
from tests.benchmarks.jobs import simulated_agents
from tests.benchmarks.results import Figure
from tests.builders import FEATURES, classifier, dscnn

REAL, SIMULATED = (1, 2, 4), (8, 16, 64)
BARE_S, QUICK_BARE_S = 20.0, 2.0
"""Bare work of one process for the real ones; ideal time for the simulated ones."""
ROW_S, SHARD_ROWS = 0.01, 25


def figures(folder: Path, quick: bool) -> list[Figure]:
    seconds = QUICK_BARE_S if quick else BARE_S
    return [*_real(folder / "real", seconds), *_simulated(folder / "simulated", seconds)]


def _real(folder: Path, seconds: float) -> list[Figure]:
    found = []
    model, rows = folder / "model.tflite", folder / "rows.npy"
    with Fleet(folder) as fleet:
        model.write_bytes(dscnn())
        random = np.random.default_rng(0)
        np.save(rows, random.integers(-128, 128, (1000, 49, 10, 1), np.int8))
        count = int(seconds / (bare_work(model, rows, 2000, processes=1).wall_s / 2000))
        np.save(rows, random.integers(-128, 128, (count, 49, 10, 1), np.int8))
        digest = fleet.client.put_file(rows).digest
        version = fleet.push("keywords", model.read_bytes())
        for agents in REAL:
            for number in range(len(fleet.agents), agents):
                fleet.add_agent(f"pi-{number + 1}")
            _bring(fleet, "keywords", version, agents == REAL[0])
            before = bare_work(model, rows, count // 2, processes=1).wall_s
            job = fleet.compute("keywords", digest, 60 + 8 * seconds)
            alone = before + bare_work(model, rows, count // 2, processes=1).wall_s
            assert job.makespan_s is not None
            note = f"{alone:.1f} s by one bare process, {job.makespan_s:.1f} s by the job"
            found.append(Figure(f"speedup_real_{agents}", alone / job.makespan_s, note=note))
    return found


def _simulated(folder: Path, seconds: float) -> list[Figure]:
    found = []
    with Fleet(folder) as fleet:
        version = fleet.push("toy", classifier())
        here = 0
        for agents in SIMULATED:
            simulated_agents.start(fleet, 1000 * ROW_S, first=here, count=agents - here)
            here = agents
            _bring(fleet, "toy", version, agents == SIMULATED[0])
            rows = int(agents * seconds / ROW_S)
            digest = fleet.put_array(np.zeros((rows, FEATURES), np.float32), folder / "x.npy")
            job = fleet.compute("toy", digest, 60 + 8 * seconds, shard_rows=SHARD_ROWS)
            assert job.makespan_s is not None
            note = f"simulated: {rows * ROW_S:.0f} s of sleep in {job.makespan_s:.1f} s"
            found.append(Figure(f"speedup_simulated_{agents}", rows * ROW_S / job.makespan_s, note=note))
    return found


def _bring(fleet: Fleet, model: str, version: int, first: bool) -> None:
    if first:
        fleet.roll_out(model, version)
    fleet.all_serve(model)
