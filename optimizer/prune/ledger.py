"""What a cut model would cost, without building it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from optimizer.macs import Size
from optimizer.prune.coupling import Coupling, Kept
from optimizer.prune.site import Weight


def size_of(coupling: Coupling, kept: Kept) -> Size:
    """Parameters, and multiply-accumulates of one row, of the model cut to `kept` (bool by class)."""
    parameters = macs = 0
    for record in coupling.records:
        for weight, shape in zip(record.weights, _shapes(record.layer), strict=True):
            elements = _elements(weight, shape, kept)
            parameters += elements
            macs += elements * weight.places
        macs += sum(_elements(product, (), kept) * product.places for product in record.products)
    return Size(parameters, macs)


def _elements(weight: Weight, shape: tuple[int, ...], kept: Kept) -> int:
    return math.prod(
        shape[at] if axis is None else int(np.count_nonzero(kept[axis.labels])) for at, axis in enumerate(weight.axes)
    )


def _shapes(layer: object) -> Sequence[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in getattr(layer, "weights", [])]
