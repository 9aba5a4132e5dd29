"""What may happen to one job and its devices, drawn from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

FaultKind = Literal["restart", "drain", "hang", "broker", "controller", "pause"]
KINDS: tuple[FaultKind, ...] = ("restart", "drain", "hang", "broker", "controller", "pause")
_MOST_FAULTS = 5


@dataclass(frozen=True)
class Fault:
    """Begins at `at` and ends `length` seconds later."""

    at: float
    kind: FaultKind
    length: float
    device: str = ""


@dataclass(frozen=True)
class Scene:
    """`row_s`: seconds a row by device. Shares from 0 to 1 of messages that get lost, or come twice."""

    seed: int
    rows: int
    shard_rows: int
    replicas: int
    row_s: dict[str, float]
    poison: frozenset[int]
    """First rows of the shards that no device can compute."""
    bad: str
    """A device that fails all that it is given; empty: there is none."""
    faults: tuple[Fault, ...]
    cancelled_at: float
    lost: float
    twice: float
    delay_s: float
    """The longest way of a message: later ones overtake earlier ones."""


def draw(seed: int) -> Scene:
    chance = random.Random(seed)
    replicas = chance.choice((1, 1, 1, 2, 3))
    names = [f"device-{number}" for number in range(chance.randint(max(1, replicas), 5))]
    row_s = {name: 10 ** chance.uniform(-3.3, -1.7) for name in names}
    rows, shard_rows = chance.randint(1, 1500), chance.randint(5, 60)
    starts = range(0, rows, shard_rows)
    poison = frozenset(chance.sample(starts, min(len(starts), chance.randint(1, 2)))) if chance.random() < 0.25 else ()
    bad = names[-1] if len(names) > max(2, replicas) and chance.random() < 0.2 else ""
    length = rows * replicas / sum(1 / each for each in row_s.values()) + 1
    return Scene(
        seed=seed,
        rows=rows,
        shard_rows=shard_rows,
        replicas=replicas,
        row_s=row_s,
        poison=frozenset(poison),
        bad=bad,
        faults=tuple(_faults(chance, names, bad, length)),
        cancelled_at=chance.uniform(0, length) if chance.random() < 0.05 else float("inf"),
        lost=chance.choice((0.0, 0.0, 0.03)),
        twice=chance.choice((0.0, 0.1, 0.5)),
        delay_s=chance.choice((0.01, 0.1, 1.0)),
    )


def _faults(chance: random.Random, names: list[str], bad: str, length: float) -> list[Fault]:
    # Beside a device that fails everything, one stays: what fails on all that are there is poison.
    hit = names[1:] if bad else names
    found = []
    for _ in range(chance.randint(0, _MOST_FAULTS)):
        kind = chance.choice(KINDS)
        device = chance.choice(hit) if kind in ("restart", "drain", "hang") else ""
        found.append(Fault(chance.uniform(0, length), kind, chance.choice((0.05, 1.0, 3.0, 8.0)), device))
    return sorted(found, key=lambda fault: fault.at)
