"""Losses of training, with and without a teacher, on logits or values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from optimizer.data import Array
from optimizer.tuning import Loss

LOSSES: tuple[Loss, ...] = ("sparse_categorical_crossentropy", "binary_crossentropy", "mse")

_SMALL = 1e-7


def loss_for(outputs: Array, labels: Array | None = None) -> Loss:
    """The loss that suits what a model gave: (rows, classes > 1) scores, (rows, 1) probabilities, or values.

    Scores that are no probabilities are logits where the labels are classes, else values.
    """
    if outputs.ndim == 2 and (are_classes(labels) or are_probabilities(outputs)):
        return "sparse_categorical_crossentropy" if outputs.shape[1] > 1 else "binary_crossentropy"
    return "mse"


def are_classes(labels: Any) -> bool:
    """Whether labels are class indices: (rows,) whole numbers."""
    return isinstance(labels, np.ndarray) and labels.ndim == 1 and labels.dtype.kind in "iu"


def are_probabilities(outputs: Array) -> bool:
    """Whether every row is a distribution, or one probability; else scores are taken for logits."""
    within = bool(((outputs >= 0) & (outputs <= 1)).all())
    return within and (outputs.shape[-1] == 1 or bool(np.allclose(outputs.sum(-1), 1, atol=1e-3)))


def logits(outputs: Any, loss: Loss, probabilities: bool) -> Any:
    """What stands before the softmax or sigmoid: as Keras remembers it, else by the logarithm."""
    if loss == "mse" or not probabilities:
        return outputs
    if (remembered := getattr(outputs, "_keras_logits", None)) is not None:
        return remembered
    clipped = tf.clip_by_value(outputs, _SMALL, 1.0)
    if loss == "sparse_categorical_crossentropy":
        return tf.math.log(clipped)
    return tf.math.log(clipped) - tf.math.log(tf.clip_by_value(1.0 - outputs, _SMALL, 1.0))


def accuracy(loss: Loss, labels: Any) -> Callable[[Any, Any], Any] | None:
    """The share of rows of (logits, labels) whose class is right; None where the labels are not classes."""
    if not are_classes(labels):
        return None
    middle = 0.5 if loss == "mse" else 0.0

    def right(given: Any, classes: Any) -> Any:
        found = tf.argmax(given, -1) if given.shape[-1] > 1 else tf.cast(given[:, 0] > middle, tf.int64)
        return tf.reduce_mean(tf.cast(found == tf.cast(classes, tf.int64), tf.float32))

    return right


def _like(given: Any, labels: Any) -> Any:
    """Labels as values of the outputs' shape: a class beside several outputs is 1 at its place."""
    if len(given.shape) == 2 and given.shape[-1] > 1 and len(labels.shape) == 1:
        return tf.one_hot(tf.cast(labels, tf.int32), given.shape[-1], dtype=given.dtype)
    return tf.reshape(tf.cast(labels, given.dtype), tf.shape(given))


def hard(loss: Loss) -> Callable[[Any, Any], Any]:
    """Mean loss of (logits, labels): labels (rows,) of classes, (rows, 1) of 0 and 1, or values like the outputs."""
    if loss == "sparse_categorical_crossentropy":
        return lambda given, labels: tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tf.cast(labels, tf.int32), logits=given)
        )
    if loss == "binary_crossentropy":
        return lambda given, labels: tf.reduce_mean(
            tf.nn.sigmoid_cross_entropy_with_logits(labels=_like(given, labels), logits=given)
        )
    return lambda given, labels: tf.reduce_mean(tf.math.squared_difference(given, _like(given, labels)))


def soft(loss: Loss, temperature: float) -> Callable[[Any, Any], Any]:
    """Mean loss of (logits, the teacher's logits): Hinton et al., arXiv 1503.02531, with its factor T squared.

    0 where both agree, but for the binary case, whose least is the entropy of the teacher. MSE knows no temperature.
    """
    square = temperature**2
    if loss == "sparse_categorical_crossentropy":

        def divergence(given: Any, teacher: Any) -> Any:
            told = tf.nn.softmax(teacher / temperature)
            apart = tf.nn.log_softmax(teacher / temperature) - tf.nn.log_softmax(given / temperature)
            return square * tf.reduce_mean(tf.reduce_sum(told * apart, -1))

        return divergence
    if loss == "binary_crossentropy":
        return lambda given, teacher: (
            square
            * tf.reduce_mean(
                tf.nn.sigmoid_cross_entropy_with_logits(
                    labels=tf.sigmoid(teacher / temperature), logits=given / temperature
                )
            )
        )
    return lambda given, teacher: tf.reduce_mean(tf.math.squared_difference(given, teacher))
