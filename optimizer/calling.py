"""Calls Keras models however they were built: one input or several, a list or a dictionary."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from optimizer.data import Array

ROWS = 512
"""At once, where nothing is learned."""


def call(model: Any, inputs: tuple[Any, ...], training: bool) -> Any:
    """The model on its inputs, in the structure (one, a list, a dict) that it was built with."""
    given: Any = list(inputs) if len(inputs) > 1 else inputs[0]
    if (structure := getattr(model, "_inputs_struct", None)) is not None:
        given = keras.tree.pack_sequence_as(structure, list(inputs))
    return model(given, training=training)


def outputs_of(model: Any, inputs: tuple[Any, ...], training: bool) -> list[Any]:
    """The model's outputs in the order of `model.outputs`."""
    found: list[Any] = keras.tree.flatten(call(model, inputs, training))
    return found


def on_all(answer: Callable[[tuple[Any, ...]], list[Any]], inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    """What `answer` gives for all rows, float32."""
    compiled = tf.function(answer, autograph=False, reduce_retracing=True)
    found = [[np.asarray(part, np.float32) for part in compiled(some)] for some in _some(inputs)]
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))


def _some(inputs: tuple[Array, ...]) -> Iterator[tuple[Array, ...]]:
    for at in range(0, len(inputs[0]), ROWS):
        yield tuple(part[at : at + ROWS] for part in inputs)
