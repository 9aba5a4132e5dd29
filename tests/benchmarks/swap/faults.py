"""An agent is killed at every fault point of an update, and its disk is cut after every write: does it serve on?"""

from __future__ import annotations

from pathlib import Path

from tests import killpoints, powercuts
from tests.agent_here import quiet
from tests.benchmarks.results import Figure

IMAGES, SEED = 4, 1
"""Torn disks after each write."""
QUICK_POINT, QUICK_PREFIXES = "swap.Route", 6


def figures(folder: Path, quick: bool) -> list[Figure]:
    kills, cuts = (_some if quick else _all)(folder)
    unusable = [*kills.unusable, *cuts.unusable]
    return [
        Figure("kill_points", kills.kill_points, note=f"{len(kills.points)} points, in an update or in a recovery"),
        Figure("write_prefixes", cuts.write_prefixes, note=f"{cuts.images} disks, {cuts.failed_operations} failures"),
        Figure("unusable", len(unusable), "", "0", not unusable, "; ".join(unusable[:3]), always=True),
        Figure("slowest_start_s", kills.slowest_s, "s", "<= 5", kills.slowest_s <= 5, "after a kill, to an answer"),
    ]


def _all(folder: Path) -> tuple[killpoints.Tally, powercuts.Tally]:
    return killpoints.everything(_made(folder / "kills")), powercuts.everything(_made(folder / "cuts"), IMAGES, SEED)


def _some(folder: Path) -> tuple[killpoints.Tally, powercuts.Tally]:
    kills = killpoints.everything(_made(folder / "kills"), passes=1, points=[QUICK_POINT])
    place = _made(folder / "cuts")
    with quiet():
        update = powercuts.record(place / "recorded")
        count = len(update.operations)
        return kills, powercuts.replay(update, place, list(range(0, count + 1, count // QUICK_PREFIXES)), 1, SEED)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
