"""How long one row takes: two files in the agent's runtime on one thread, in turns, so that both see the same host."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from agent.runtime import Model, load
from tests.builders import RUNTIMES


class Paired(NamedTuple):
    """Microseconds of one row, medians over turns; `ratio` is the median of the turns' own ratios."""

    first_us: float
    second_us: float
    ratio: float


def paired(first: bytes, second: bytes, turns: int, rows: int) -> Paired:
    """`turns` times each file computes `rows` rows, one at a time."""
    models = [load(content, runtimes=RUNTIMES, threads=1) for content in (first, second)]
    for model in models:
        _row_us(model, rows)
    return summed([(_row_us(models[0], rows), _row_us(models[1], rows)) for _ in range(turns)])


def summed(turns: Sequence[tuple[float, float]]) -> Paired:
    """Of the microseconds of both files by turns."""
    first, second = (statistics.median(turn[at] for turn in turns) for at in (0, 1))
    return Paired(first, second, statistics.median(one / other for one, other in turns))


def _row_us(model: Model, rows: int) -> float:
    """Stored numbers in and out: what a worker pays for the graph, with the copies into it and out of it."""
    row = {spec.name: np.zeros((1, *spec.shape), spec.dtype) for spec in model.inputs}
    started = time.perf_counter()
    for _ in range(rows):
        model.invoke(row)
    return (time.perf_counter() - started) / rows * 1e6
