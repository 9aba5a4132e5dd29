"""What `lepta up` costs until it is ready."""

from __future__ import annotations

import statistics
from pathlib import Path

from tests.benchmarks.fleet import Fleet
from tests.benchmarks.results import Figure, at_most


def figures(folder: Path, quick: bool) -> list[Figure]:
    starts = []
    for number in range(1 if quick else 5):
        with Fleet(folder / str(number)) as fleet:
            starts.append(fleet.up)
    cpu = statistics.median(start.cpu_s for start in starts)
    wall = statistics.median(start.wall_s for start in starts)
    return [
        at_most("up_ready_cpu_s", cpu, 3.0, "s", f"controller and broker, a new data folder; median of {len(starts)}"),
        Figure("up_ready_s", wall, "s"),
    ]
