"""Calibration: how far stated confidence is from accuracy, and one temperature that brings them together.

Expected calibration error: Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015;
temperature scaling: Guo et al., "On calibration of modern neural networks", ICML 2017.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from controller.reducers.classes import sharpened
from controller.reducers.face import Array

BINS = 15
_UNIT = 2**40
_LEAST, _MOST = 0.02, 50.0


def _zeros() -> Array:
    return np.zeros((3, BINS), np.int64)


@dataclass
class Confidences:
    """Confidence against being right, in bins of equal width; kept in integers, so that no order matters."""

    bins: Array = field(default_factory=_zeros)
    """(3, BINS): how many, how many right, sum of confidence in units of 2^-40."""

    def add(self, confidence: Array, right: Array) -> None:
        """`confidence` (rows,) in 0..1, `right` (rows,) bool."""
        place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
        stated = np.rint(confidence * _UNIT).astype(np.int64)
        for row, values in enumerate((np.ones(len(place), np.int64), right.astype(np.int64), stated)):
            np.add.at(self.bins[row], place, values)

    def merge(self, other: Confidences) -> None:
        self.bins += other.bins

    @property
    def rows(self) -> int:
        return int(self.bins[0].sum())

    @property
    def accuracy(self) -> float:
        return int(self.bins[1].sum()) / self.rows

    @property
    def ece(self) -> float:
        """Mean distance of confidence from accuracy over the bins, weighted by their rows."""
        gaps = sum(abs(int(right) * _UNIT - int(stated)) for _, right, stated in self.bins.T)
        return gaps / (_UNIT * self.rows)


def held_out(labels: Array, share: float, most: int) -> Array:
    """Which labelled rows a refinement is fitted on: (rows,) bool, the same for the same labels.

    Drawn by a hash of the row's number, so that no order in the input matters; at most `most`.
    """
    known = np.flatnonzero(labels >= 0)
    draw = mixed(known)
    count = min(round(share * len(known)), most)
    chosen = np.zeros(len(labels), np.bool_)
    chosen[known[np.argpartition(draw, min(count, len(known) - 1))[:count]]] = True
    return chosen


def fit_temperature(logs: Array, labels: Array) -> float:
    """The temperature at which held-out labels are most likely. `logs` (rows, classes), `labels` (rows,).

    The likelihood is concave in 1 / temperature: its slope is halved in on. 1.0 where there is nothing to go by.
    """
    if not len(labels):
        return 1.0
    target = logs[np.arange(len(labels)), labels].sum()
    low, high = 1 / _MOST, 1 / _LEAST
    for _ in range(60):
        middle = (low * high) ** 0.5
        expected = (sharpened(logs, 1 / middle) * logs).sum()
        low, high = (middle, high) if expected < target else (low, middle)
    return 1 / low


def mixed(numbers: Array) -> Array:
    """Whole numbers as numbers without visible order, one to one: SplitMix64's finalizer (Steele et al. 2014)."""
    z = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
