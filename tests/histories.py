"""PURE: what a history of jobs must be like. Its lines come from `controller.recorder`, or from the simulation.

A line is written once what it says is saved. So an accepted shard survives every restart; the one thing that a kill may
keep out of the history is what was saved and not yet written: a restart's `restore` tells it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Line = Mapping[str, Any]


@dataclass
class History:
    """One job's. `double`: shards that were counted twice; `lost`: neither counted nor quarantined at the end."""

    shards: int = 0
    leases: dict[tuple[int, int], str] = field(default_factory=dict)
    """Device by shard and attempt."""
    accepted: set[int] = field(default_factory=set)
    quarantined: set[int] = field(default_factory=set)
    speculative: int = 0
    refused: int = 0
    restarts: int = 0
    double: int = 0
    paused: bool = False
    ended: str = ""
    violations: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        return self.shards - len(self.accepted | self.quarantined)


def check(lines: Iterable[Line]) -> dict[str, History]:
    """Every job's history, with what is wrong about it."""
    found: dict[str, History] = {}
    for line in lines:
        if "job" in line:
            history = found.setdefault(line["job"], History())
            _STEPS.get(line["event"], _nothing)(history, line)
            history.paused = line["event"] == "paused" or (history.paused and line["event"] != "running")
    for history in found.values():
        if history.ended in ("done", "failed") and history.lost:
            history.violations.append(f"{history.lost} shards were neither counted nor quarantined")
    return found


def _begun(history: History, line: Line) -> None:
    history.shards = line["shards"]


def _leased(history: History, line: Line) -> None:
    shard, attempt = line["shard"], line["attempt"]
    what = f"shard {shard}, attempt {attempt}, was leased"
    last = max((a for s, a in history.leases if s == shard), default=0)
    if attempt <= last:
        history.violations.append(f"{what} after attempt {last}: nothing fences the two")
    if shard in history.accepted:
        history.violations.append(f"{what} although it was accepted")
    if history.ended or history.paused:
        history.violations.append(f"{what} in a job that is {history.ended or 'paused'}")
    history.leases[shard, attempt] = line["device"]
    history.speculative += line["speculative"]


def _accepted(history: History, line: Line) -> None:
    shard, attempt, device = line["shard"], line["attempt"], line["device"]
    if shard in history.accepted:
        history.double += 1
        history.violations.append(f"shard {shard} was accepted twice")
    if shard in history.quarantined:
        history.violations.append(f"shard {shard} was quarantined, and accepted")
    holder = history.leases.get((shard, attempt))
    if holder != device:
        history.violations.append(f"shard {shard}, attempt {attempt}, came from {device}; {holder} had the lease")
    history.accepted.add(shard)


def _refused(history: History, _line: Line) -> None:
    history.refused += 1


def _quarantined(history: History, line: Line) -> None:
    if line["shard"] in history.accepted:
        history.violations.append(f"shard {line['shard']} was accepted, and quarantined")
    history.quarantined.add(line["shard"])


def _restored(history: History, line: Line) -> None:
    saved = set(line["accepted"])
    history.restarts += 1
    if len(saved) < len(line["accepted"]):
        history.violations.append("the store counts a shard twice")
    if forgotten := history.accepted - saved:
        history.violations.append(f"a restart forgot the shards {sorted(forgotten)[:9]}")
    if strange := saved - {shard for shard, _ in history.leases}:
        history.violations.append(f"a restart counts the shards {sorted(strange)[:9]}, which nobody had")
    if forgotten := history.quarantined - set(line["quarantined"]):
        history.violations.append(f"a restart forgot the quarantine of {sorted(forgotten)[:9]}")
    history.accepted |= saved
    history.quarantined |= set(line["quarantined"])


def _ended(history: History, line: Line) -> None:
    if history.ended:
        history.violations.append(f"it ended twice: {history.ended}, {line['state']}")
    if line["accepted"] != len(history.accepted):
        history.violations.append(f"it says {line['accepted']} shards were accepted, and {len(history.accepted)} were")
    history.ended = line["state"]


def _nothing(_history: History, _line: Line) -> None:
    return


_STEPS = {
    "job": _begun,
    "lease": _leased,
    "accept": _accepted,
    "refuse": _refused,
    "quarantine": _quarantined,
    "restore": _restored,
    "job-end": _ended,
}
