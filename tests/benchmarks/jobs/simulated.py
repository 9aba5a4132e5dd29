"""Simulated lives of jobs, drawn from seeds: what is late, lost, doubled, killed, paused, drained or poisoned."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks.results import Figure
from tests.jobs_simulated import many

RUNS, QUICK_RUNS = 20_000, 500


def figures(_folder: Path, quick: bool) -> list[Figure]:
    tally = many(QUICK_RUNS if quick else RUNS)
    wrong = len(tally.wrong)
    note = f"{tally.leases} leases, {tally.restarts} restarts of the controller, {tally.refused} answers refused"
    return [
        Figure("simulated_runs", tally.runs, note=note),
        Figure("simulated_lost", tally.lost, "", "0", tally.lost == 0, always=True),
        Figure("simulated_double", tally.double, "", "0", tally.double == 0, always=True),
        Figure("simulated_violations", wrong, "", "0", wrong == 0, "; ".join(tally.wrong[:3]), always=True),
    ]
