"""Forged, stale and misdirected manifests before the checks of an agent, and altered artifacts before its store."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from agent.blobs import Blobs
from agent.disk import RealDisk
from tests.attacks import ARTIFACT, alterations, attacks, taken, verdict
from tests.benchmarks.results import Figure

MANIFESTS, QUICK_MANIFESTS, SEED = 2000, 200, 1
ARTIFACTS, QUICK_ARTIFACTS = 1200, 60


def figures(folder: Path, quick: bool) -> list[Figure]:
    manifests, artifacts = (QUICK_MANIFESTS, QUICK_ARTIFACTS) if quick else (MANIFESTS, ARTIFACTS)
    folder.mkdir(exist_ok=True)
    blobs = Blobs(folder, RealDisk(), 8 * len(ARTIFACT))
    refused = Counter(verdict(attack) for attack in attacks(manifests, SEED))
    kept_out = Counter(taken(altered, blobs) for altered in alterations(artifacts, SEED))
    accepted = refused.pop("", 0) + kept_out.pop("", 0)
    note = f"manifests refused by cause: {_counted(refused)}; altered artifacts: {_counted(kept_out)}"
    return [
        Figure("attacks", manifests + artifacts, note=note),
        Figure("attacks_accepted", accepted, "", "0", accepted == 0, always=True),
    ]


def _counted(causes: Counter[str]) -> str:
    return ", ".join(f"{cause} {times}" for cause, times in causes.most_common())
