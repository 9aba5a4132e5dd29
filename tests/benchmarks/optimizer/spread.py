"""Means over seeds and how sure they are. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

# Two-sided 95 % points of Student's t by degrees of freedom.
_T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


class Spread(NamedTuple):
    """The mean of one difference per seed; `half` of its 95 % interval, infinite for a single seed."""

    mean: float
    half: float
    values: tuple[float, ...]

    @property
    def text(self) -> str:
        """Such as "0.12 ± 0.05 (95 %; by seed 0.10 0.14 0.12)"."""
        seeds = " ".join(f"{value:.2f}" for value in self.values)
        if math.isinf(self.half):
            return f"one seed: {seeds}"
        return f"{self.mean:.2f} ± {self.half:.2f} (95 %; by seed {seeds})"


def spread(values: Sequence[float]) -> Spread:
    """Of 1 to 10 values; raises ValueError for another number of them."""
    count = len(values)
    if not 1 <= count <= len(_T_95) + 1:
        raise ValueError(f"{count} values: 1 to {len(_T_95) + 1} are known here")
    mean = sum(values) / count
    if count == 1:
        return Spread(mean, math.inf, tuple(values))
    variance = sum((value - mean) ** 2 for value in values) / (count - 1)
    return Spread(mean, _T_95[count - 2] * math.sqrt(variance / count), tuple(values))


def paired(first: Sequence[float], second: Sequence[float]) -> Spread:
    """Of the differences `first - second`, seed by seed."""
    return spread([a - b for a, b in zip(first, second, strict=True)])
