"""Batch normalization taken into the layer before it, so that nothing stands between weights and their rounding."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from optimizer.data import Array
from optimizer.prune.graph import Call, Graph

_INTO = ("Conv2D", "DepthwiseConv2D", "Dense")


def foldable(graph: Graph) -> dict[int, Any]:
    """id of a layer -> the normalization after it, where nobody else hears that layer."""
    calls = Counter(id(one.layer) for one in graph.calls)
    heard = Counter(value.number for one in graph.calls for value in one.inputs)
    heard.update(value.number for value in graph.outputs)
    made = {value.number: one for one in graph.calls for value in one.outputs if value not in one.inputs}
    found = {}
    for one in graph.calls:
        if type(one.layer).__name__ != "BatchNormalization" or calls[id(one.layer)] != 1:
            continue
        before = made.get(one.inputs[0].number)
        if (
            before is not None
            and calls[id(before.layer)] == 1
            and heard[one.inputs[0].number] == 1
            and _fits(before, one)
        ):
            found[id(before.layer)] = one.layer
    return found


def folded_weights(layer: Any, norm: Any) -> list[Array]:
    """Kernel and bias that do both."""
    kernel = np.asarray(layer.kernel, np.float64)
    bias = np.asarray(layer.bias, np.float64) if layer.use_bias else 0.0
    scale = 1 / np.sqrt(np.asarray(norm.moving_variance, np.float64) + norm.epsilon)
    if norm.scale:
        scale = scale * np.asarray(norm.gamma, np.float64)
    shift = np.asarray(norm.beta, np.float64) if norm.center else 0.0
    shape = kernel.shape[-2:] if type(layer).__name__ == "DepthwiseConv2D" else kernel.shape[-1:]
    folded = kernel * scale.reshape(shape)
    return [folded.astype(np.float32), ((bias - np.asarray(norm.moving_mean)) * scale + shift).astype(np.float32)]


def _fits(before: Call, norm: Call) -> bool:
    layer = before.layer
    linear = type(layer).__name__ in _INTO and getattr(layer.activation, "__name__", "") == "linear"
    last = norm.layer.axis in (-1, len(norm.inputs[0].shape) - 1)
    return linear and last and getattr(layer, "data_format", "channels_last") == "channels_last"
