"""What a model loses when one group of channels is pruned alone, measured on data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from optimizer.prune.budget import Curve
from optimizer.prune.coupling import Coupling, Kept, Record
from optimizer.prune.select import Scores, select
from optimizer.prune.settings import LEAST, RATIOS, Least
from optimizer.prune.surgery import masked_weights


def measure(
    coupling: Coupling,
    scores: Scores,
    loss: Callable[[], float],
    ratios: Sequence[float] = RATIOS,
    tell: Callable[[float, str], None] = lambda fraction, detail: None,
    least: Least = LEAST,
) -> dict[str, Curve]:
    """For every group that can be pruned, (ratio, rise of `loss`) in the order of `ratios`.

    `loss()` judges the model that `coupling` came from; its weights are masked meanwhile and restored after.
    """
    before, groups = loss(), coupling.prunable()
    curves: dict[str, Curve] = {}
    for at, group in enumerate(groups):
        tell(at / len(groups), f"sensitivity of {group.name}")
        points = []
        for ratio in ratios:
            with masked(coupling, select(coupling, scores, {group.name: ratio}, least)):
                points.append((ratio, loss() - before))
        curves[group.name] = points
    return curves


@contextmanager
def masked(coupling: Coupling, kept: Kept) -> Iterator[None]:
    """Within it, the model of `coupling` computes as if it was cut to `kept`."""
    saved = [(record.layer, record.layer.get_weights()) for record in coupling.records if _hears(record, kept)]
    try:
        for record in coupling.records:
            if _hears(record, kept):
                record.layer.set_weights(masked_weights(record, kept))
        yield
    finally:
        for layer, weights in saved:
            layer.set_weights(weights)


def _hears(record: Record, kept: Kept) -> bool:
    axes: Iterator[Any] = (axis for weight in record.weights for axis in weight.axes if axis is not None)
    return any(axis.role in ("takes", "both") and not np.all(kept[axis.labels]) for axis in axes)
