"""PURE: rows cut into shards."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Shard:
    """Rows `first` to `last` (exclusive) of the input."""

    number: int
    first: int
    last: int

    @property
    def rows(self) -> int:
        return self.last - self.first


def split(rows: int, shard_rows: int) -> list[Shard]:
    """Cut `rows` into shards of `shard_rows`, the last one shorter; each row is in exactly one shard."""
    if rows < 0 or shard_rows < 1:
        raise ValueError(f"cannot split {rows} rows into shards of {shard_rows}")
    starts = range(0, rows, shard_rows)
    return [Shard(number, first, min(first + shard_rows, rows)) for number, first in enumerate(starts)]


def replicated(shards: list[Shard], replicas: int) -> list[Shard]:
    """Each shard so many times. Replica r of shard n has the number n + r * len(shards); those of the same rows stand
    side by side, so that they are handed out together."""
    count = len(shards)
    return [Shard(s.number + replica * count, s.first, s.last) for s in shards for replica in range(replicas)]


def shard_size(rows: int, speeds: Sequence[float], most: int, target_s: float, longest_s: float) -> int:
    """Rows per shard, given each device's seconds a row: `target_s` of computing on the fastest, no more than
    `longest_s` on the slowest, eight shards a device, at most `most`."""
    by_time = min(target_s / max(min(speeds), 1e-6), longest_s / max(*speeds, 1e-6))
    fair = rows / (8 * len(speeds))
    return max(1, min(round(by_time), math.ceil(fair), most))


def settled(size: int, cuts: Iterable[int], most: int) -> int:
    """The one of `cuts` that is nearest to `size`, if it lies between a third and twice of it; else `size`."""
    near = [cut for cut in cuts if size <= 3 * cut and cut <= min(2 * size, most)]
    return min(near, key=lambda cut: (max(cut / size, size / cut), cut), default=size)
