"""PURE: rows of the input that are hidden in every shard, so that a device that computes wrongly shows.

Which rows, and where among a shard's own, follows from the job and the shard: a device cannot tell them from others,
and the controller finds them again after a restart. All devices with the same artifact owe the same bits for them.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping

import numpy as np

from controller.reducers.calibration import mixed
from controller.reducers.face import Array
from controller.reducers.tally import fingerprints

POOL = 64
"""Rows that serve as canaries in one job: few, so that each is computed by every device."""


def chosen(job: str, shard: int, count: int, rows: int) -> list[int]:
    """The canary rows of a shard, of an input of so many rows."""
    pool = [int(n) for n in _draws(POOL, job) % np.uint64(rows)]
    picks = _draws(count, f"{job} {shard}") % np.uint64(POOL)
    return [pool[int(pick)] for pick in picks]


def order(job: str, shard: int, rows: int) -> Array:
    """In which order a shard's own rows and its canaries, put behind them, are sent: (rows,) places."""
    return np.argsort(_draws(rows, f"{shard} {job}"), kind="stable")


def sorted_back(array: Array, order: Array) -> Array:
    """Answers in the order that was sent, as own rows with the canaries behind them."""
    back = np.empty_like(array)
    back[order] = array
    return back


class Tally:
    """Counts, by canary row and artifact, which bits each device gave. No order matters."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, str], Counter[tuple[int, str]]] = defaultdict(Counter)

    def add(self, device: str, artifact: str, rows: list[int], outputs: Mapping[str, Array]) -> None:
        """`outputs`: of these canary rows, each (len(rows), ...)."""
        for row, bits in zip(rows, fingerprints(outputs), strict=True):
            self._seen[row, artifact][int(bits), device] += 1

    def disagreement(self) -> dict[str, float]:
        """By device, the share of its canaries that came out otherwise than from most. Each device has one voice for a
        row, for what it answered most often; where no answer has more voices than any other, nobody is blamed."""
        asked: Counter[str] = Counter()
        against: Counter[str] = Counter()
        for answers in self._seen.values():
            usual = _usual(answers)
            if usual is None:
                continue
            for (bits, device), count in answers.items():
                asked[device] += count
                against[device] += count if bits != usual else 0
        return {device: against[device] / asked[device] for device in sorted(asked)}


def _usual(answers: Counter[tuple[int, str]]) -> int | None:
    voices: dict[str, tuple[int, int]] = {}
    for (bits, device), count in answers.items():
        voices[device] = max(voices.get(device, (0, 0)), (count, -bits))
    votes = Counter(-negative for _, negative in voices.values())
    first, *others = votes.most_common(2)
    return None if others and others[0][1] == first[1] else first[0]


def _draws(count: int, text: str) -> Array:
    """Numbers below 2^64 that follow from a text."""
    seed = np.uint64(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little"))
    return mixed(np.arange(count, dtype=np.uint64) + seed)
