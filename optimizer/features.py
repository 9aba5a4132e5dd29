"""What a model knows before its last layer, taught by which rows it finds alike.

Tung and Mori, "Similarity-Preserving Knowledge Distillation" (arXiv 1907.09682): the similarities between the rows of
a batch are compared and not the activations, so that student and teacher need no equal widths.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from optimizer.errors import RefusedError


def with_features(model: Any) -> Any:
    """The same layers with, after the outputs, what goes into the last layer with weights before each of them.

    Raises RefusedError where that layer is hidden in a nested model, or there is none.
    """
    return keras.Model(model.inputs, [*model.outputs, *map(_before_last, model.outputs)])


def alike(student: Any, teacher: Any) -> Any:
    """How far apart the rows' similarities are: 0 where student and teacher find the same rows alike, at most 4 / rows.

    Activations (rows, ...), of any widths.
    """
    rows = tf.cast(tf.shape(student)[0], tf.float32)
    return tf.reduce_sum(tf.math.squared_difference(_similar(student), _similar(teacher))) / rows**2


def _similar(hidden: Any) -> Any:
    flat = tf.reshape(tf.cast(hidden, tf.float32), (tf.shape(hidden)[0], -1))
    return tf.math.l2_normalize(tf.matmul(flat, flat, transpose_b=True), axis=1)


def _before_last(output: Any) -> Any:
    tensor = output
    while True:
        operation, node, _ = tensor._keras_history
        given = operation._inbound_nodes[node].input_tensors
        if isinstance(operation, keras.Model) or not given:
            raise RefusedError(
                f"features of {output.name!r} cannot be found: the model's last layer with weights must stand in the "
                "model itself, not in a nested one; set features to 0"
            )
        if getattr(operation, "weights", None):
            return given[0]
        if len(given) != 1:
            return tensor
        tensor = given[0]
