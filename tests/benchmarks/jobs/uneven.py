"""1,000 shards on four simulated agents, one five times as slow as the others, and one of the fast ones killed.

"Ideal" is a fluid: all four compute without a gap at their speed, the killed one until its end, and nothing that it
began is lost. No division into shards reaches it.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import numpy as np

from tests import histories
from tests.benchmarks.fleet import Fleet
from tests.benchmarks.jobs import simulated_agents
from tests.benchmarks.results import Figure, at_most
from tests.builders import CLASSES, FEATURES, classifier
from tests.jobkills import recorded

MODEL, SHARDS, SHARD_ROWS = "toy", 1000, 10
SHARD_S, QUICK_SHARD_S = 0.25, 0.05
"""Time of a shard on a fast agent."""
SLOWER, KILLED_AFTER = 5, 0.3
"""How much slower the slow one is; when the kill comes, as a share of the ideal time without it."""


def figures(folder: Path, quick: bool) -> list[Figure]:
    row_s = (QUICK_SHARD_S if quick else SHARD_S) / SHARD_ROWS
    each = [row_s, row_s, row_s, row_s * SLOWER]
    rows = SHARDS * SHARD_ROWS
    folder.mkdir(parents=True, exist_ok=True)
    history = folder / "history.jsonl"
    x = (np.arange(rows * FEATURES) % 251).astype(np.float32).reshape(rows, FEATURES)
    with recorded(history), Fleet(folder / "fleet") as fleet:
        agents = [simulated_agents.start(fleet, 1000 * row_s, first=number) for number, row_s in enumerate(each)]
        fleet.roll_out(MODEL, fleet.push(MODEL, classifier()))
        digest = fleet.put_array(x, folder / "x.npy")
        ideal_s = _ideal_s(rows, each, 0, float("inf"))
        job = fleet.client.start_job(MODEL, digest, shard_rows=SHARD_ROWS)
        began = time.monotonic()
        time.sleep(KILLED_AFTER * ideal_s)
        agents[0].process.kill()
        killed_s = time.monotonic() - began
        ended = fleet.end_of(job, 4 * ideal_s + 60)
        result = folder / "result.npz"
        fleet.client.job_result(ended.id, result)
    ideal_s = _ideal_s(rows, each, 0, killed_s)
    assert ended.makespan_s is not None
    with np.load(result) as table:
        right = np.frombuffer(x.tobytes(), np.uint8).reshape(rows, -1).sum(axis=1) % CLASSES
        wrong = int((table["label"] != right).sum())
    found = histories.check(map(msgspec.json.decode, history.read_bytes().splitlines()))[job.id]
    shares = ", ".join(f"{name} {share.shards}" for name, share in sorted(ended.devices.items()))
    note = f"{ended.makespan_s:.1f} s, ideal {ideal_s:.1f} s; shards: {shares}; {ended.moved} moved"
    copies = f"{found.speculative} copies of stragglers, {found.refused} answers refused"
    return [
        at_most("uneven_makespan_ratio", ended.makespan_s / ideal_s, 1.15, note=note),
        at_most("duplicate_percent", 100 * found.refused / SHARDS, 2, "%", copies),
        Figure("uneven_lost", ended.lost + found.lost, "", "0", not ended.lost + found.lost, always=True),
        Figure("uneven_double", found.double, "", "0", not found.double, always=True),
        Figure("uneven_wrong_rows", wrong, "", "0", not wrong, "; ".join(found.violations[:3]), always=True),
    ]


def _ideal_s(rows: int, row_s: list[float], killed: int, killed_s: float) -> float:
    """Seconds for `rows` where `row_s` is each agent's time of a row and agent `killed` ends after `killed_s`."""
    rate = sum(1 / each for each in row_s)
    if rows <= rate * killed_s:
        return rows / rate
    return killed_s + (rows - rate * killed_s) / (rate - 1 / row_s[killed])
