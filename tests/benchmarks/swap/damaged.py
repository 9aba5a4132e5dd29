"""Damaged .tflite files in real candidate workers: each may cost its own worker, and nothing else."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks.results import Figure
from tests.damaged_models import survive

COUNT, QUICK_COUNT = 400, 20


def figures(folder: Path, quick: bool) -> list[Figure]:
    folder.mkdir(exist_ok=True)
    outcome = survive(folder, QUICK_COUNT if quick else COUNT)
    note = ", ".join(f"{how} {times}" for how, times in sorted(outcome.endings.items()))
    return [
        Figure("damaged_models", outcome.damaged_models, note=note),
        Figure("agent_deaths", outcome.agent_deaths, "", "0", outcome.agent_deaths == 0, always=True),
    ]
