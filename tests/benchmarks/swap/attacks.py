"""Forged, stale and misdirected manifests before the checks that an agent makes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.attacks import attacks, verdict
from tests.benchmarks.results import Figure

COUNT, QUICK_COUNT, SEED = 2000, 200, 1


def figures(_: Path, quick: bool) -> list[Figure]:
    count = QUICK_COUNT if quick else COUNT
    causes = Counter(verdict(attack) for attack in attacks(count, SEED))
    accepted = causes.pop("", 0)
    note = "refused by cause: " + ", ".join(f"{cause} {times}" for cause, times in causes.most_common())
    return [
        Figure("attacks", count, note=note),
        Figure("attacks_accepted", accepted, "", "0", accepted == 0, always=True),
    ]
