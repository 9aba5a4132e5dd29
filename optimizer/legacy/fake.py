"""A Keras 2 model with the rounding of int8 in its way, and the ranges that it starts from."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras

from optimizer.data import Array
from optimizer.distill import call
from optimizer.errors import RefusedError
from optimizer.legacy.scheme import CONFIGS, Scheme, config_of, supports

_DECAY = 0.999
"""Of the moving averages of ranges, fixed in tensorflow-model-optimization."""
_PASSES, _ROUNDS, _SETTLED = 4, 20, 0.01


def quantized(model: Any, weights: Literal["per-channel", "per-tensor"]) -> Any:
    """A copy that rounds as int8 does. Raises RefusedError naming the layers that cannot."""
    bad = [layer for layer in model.layers if not supports(layer)]
    if bad:
        names = ", ".join(f"{layer.name} ({type(layer).__name__})" for layer in bad)
        raise RefusedError(f"tensorflow-model-optimization cannot train these layers for int8: {names}")

    def annotated(layer: Any) -> Any:
        config = config_of(layer, weights == "per-channel")
        return tfmot.quantization.keras.quantize_annotate_layer(layer, config)

    try:
        with warnings.catch_warnings(), tfmot.quantization.keras.quantize_scope(CONFIGS):
            warnings.simplefilter("ignore")
            marked = tf_keras.models.clone_model(model, clone_function=annotated)
            return tfmot.quantization.keras.quantize_apply(marked, Scheme(weights == "per-tensor"))
    except (ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
        raise RefusedError(
            f"tensorflow-model-optimization cannot train this model for int8: {_first(error)}"
        ) from error


def calibrate(model: Any, inputs: tuple[Array, ...]) -> None:
    """Set the ranges of activations from rows.

    They start at -6 and 6 and move by a thousandth a step, which short training never makes good: so that start is
    reckoned out of the averages. A range that was cut off hides those behind it, hence rounds. The ranges of inputs
    only ever grow: they start from nothing.
    """
    kept = [(variable, variable.numpy()) for variable in model.weights if not _is_range(variable.name)]
    for variable in model.weights:
        if _is_range(variable.name) and _of_input(variable.name):
            variable.assign(tf.zeros_like(variable))
    moving = [
        one for one in model.weights if _is_range(one.name) and not _of_input(one.name) and "kernel" not in one.name
    ]
    run = tf.function(lambda part: call(model, part, True), autograph=False, reduce_retracing=True)
    parts = [tuple(part[at::_PASSES] for part in inputs) for at in range(min(_PASSES, len(inputs[0])))]
    left = _DECAY ** len(parts)
    for _ in range(_ROUNDS):
        before = np.array([variable.numpy() for variable in moving], np.float64)
        for part in parts:
            run(part)
        after = np.array([variable.numpy() for variable in moving], np.float64)
        found = (after - before * left) / (1 - left)
        for variable, value in zip(moving, found, strict=True):
            variable.assign(value)
        if np.abs(found - before).max(initial=0.0) <= _SETTLED * np.abs(found).max(initial=0.0):
            break
    for variable, value in kept:
        variable.assign(value)


def _is_range(name: str) -> bool:
    return name.split(":")[0].endswith(("_min", "_max"))


def _of_input(name: str) -> bool:
    return name.startswith("quantize_layer")


def _first(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:300] or type(error).__name__
