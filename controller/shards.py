"""PURE: rows cut into shards."""

from __future__ import annotations

import math
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


def shard_size(rows: int, row_s: float, devices: int, most: int, target_s: float) -> int:
    """Rows per shard: `target_s` of computing at `row_s` seconds a row, eight shards a device, at most `most`."""
    by_time = target_s / max(row_s, 1e-6)
    fair = rows / max(1, 8 * devices)
    return max(1, min(round(by_time), math.ceil(fair), most))
