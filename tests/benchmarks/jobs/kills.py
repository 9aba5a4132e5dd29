"""Jobs while agents, their workers, the broker and the controller are killed: is the result that of a quiet run?"""

from __future__ import annotations

from pathlib import Path

from tests import jobkills
from tests.benchmarks.results import Figure

KILLS, QUICK_KILLS, SEED = 200, 5, 0


def figures(folder: Path, quick: bool) -> list[Figure]:
    tally = jobkills.everything(folder, QUICK_KILLS if quick else KILLS, SEED)
    victims = ", ".join(f"{victim} {times}" for victim, times in tally.kills.most_common())
    wrong = len(tally.violations)
    note = f"in {tally.jobs} jobs; {tally.moved} shards moved, {tally.refused} late answers refused"
    return [
        Figure("real_kills", tally.real_kills, note=victims),
        Figure("lost", tally.lost, "", "0", tally.lost == 0, "rows", always=True),
        Figure("double", tally.double, "", "0", tally.double == 0, "shards counted twice", always=True),
        Figure("different_results", tally.different, "", "0", tally.different == 0, note, always=True),
        Figure("history_violations", wrong, "", "0", wrong == 0, "; ".join(tally.violations[:3]), always=True),
    ]
