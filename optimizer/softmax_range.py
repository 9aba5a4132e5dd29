"""Which scores a softmax tells apart: a narrower range for them gives finer steps where it matters.

A network that is trained long gives scores from -100 to 100, and in 255 steps between these the two best classes are
often equal. But of n classes, those that are ln(512 (n - 1)) below the best have together a probability under 1/512,
half a step of an int8 softmax. So the range begins that much below the lowest best score of the calibration rows, and
ends as much above their highest second-best one: what is cut off changes none of their probabilities by more than that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from optimizer.flatfile import Array, Flatfile
from optimizer.quantize_names import tensor_name
from optimizer.traced import Traced

_STEPS = 512


def narrowed(ranged: bytes, floating: bytes, calibration: Mapping[str, Array]) -> bytes:
    """The graph `ranged` with narrower ranges for scores. `floating`: the same graph without ranges, which runs."""
    file = Flatfile(ranged)
    scores = scores_of(file)
    if not scores:
        return ranged
    shown = Flatfile(floating)
    shown.graph.outputs = [*shown.graph.outputs, *scores]
    names = {tensor_name(shown, index): index for index in scores}
    for name, values in Traced(shown.pack()).tensors(calibration, names).items():
        _narrow(file.tensor(names[name]), range_of(values.reshape(-1, values.shape[-1])))
    return file.pack()


def scores_of(file: Flatfile) -> list[int]:
    """Tensors that a softmax reads, and nobody else."""
    operators = list(file.operators())
    read = [index for op in operators for index in op.inputs] + [int(index) for index in file.graph.outputs]
    return [op.inputs[0] for op in operators if op.name == "SOFTMAX" and read.count(op.inputs[0]) == 1]


def range_of(rows: Array) -> tuple[float, float]:
    """The least and the highest score (rows, classes) that are told apart; of one class, all."""
    if rows.shape[-1] < 2:
        return float(rows.min()), float(rows.max())
    second, best = np.moveaxis(np.partition(rows, -2, axis=-1)[:, -2:], -1, 0)
    margin = math.log(_STEPS * (rows.shape[-1] - 1))
    return float(max(rows.min(), best.min() - margin)), float(min(rows.max(), second.max() + margin))


def _narrow(tensor: Any, found: tuple[float, float]) -> None:
    quantization = tensor.quantization
    if quantization is not None and quantization.min is not None and len(quantization.min) == 1:
        low, high = min(0.0, found[0]), max(0.0, found[1])  # Zero must be told exactly, as everywhere in TFLite.
        quantization.min, quantization.max = [max(low, quantization.min[0])], [min(high, quantization.max[0])]
