"""How much every channel matters: by its weights, by its BatchNorm's scale, or by what the loss loses with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from optimizer.data import Array
from optimizer.prune.coupling import Coupling
from optimizer.prune.select import Scores

Batch = tuple[Any, Any]
"""Inputs and targets of one batch; what they are is the loss function's affair."""


def by_weights(coupling: Coupling) -> Scores:
    """The mean absolute weight that makes a channel, summed over its layers (Li et al., arXiv 1608.08710)."""
    scores = np.zeros(coupling.classes)
    for record in coupling.records:
        for value, weight in zip(_values(record.layer), record.weights, strict=True):
            _add(scores, np.abs(value), weight.axes, ("makes", "both"), np.mean)
    return normalised(coupling, scores)


def by_scales(coupling: Coupling) -> Scores:
    """The absolute scale of a channel's normalization (Liu et al., arXiv 1708.06519); by weights where it has none."""
    scores = np.zeros(coupling.classes)
    for record in coupling.records:
        for value, weight in zip(_values(record.layer), record.weights, strict=True):
            _add(scores, np.abs(value), weight.axes, ("scales",), np.mean)
    plain = by_weights(coupling)
    for group in coupling.groups:
        if not scores[group.classes].all():
            scores[group.classes] = plain[group.classes]
    return normalised(coupling, scores)


def by_loss(
    coupling: Coupling, answer: Callable[[Any], Any], batches: Iterable[Batch], loss: Callable[[Any, Any], Any]
) -> Scores:
    """First-order Taylor (Molchanov et al., arXiv 1906.10771): the squared change of the loss without the channel.

    Gradient times weight, summed over the weights that take a channel in: exactly the derivative of the loss by a
    factor on that channel. `answer(inputs)` is the model of `coupling`; `loss(outputs, targets)` gives a scalar
    tensor; squares are averaged over the batches.
    """
    variables = [variable.value for record in coupling.records for variable in getattr(record.layer, "weights", [])]
    gradients = _gradients(answer, variables, loss)
    scores, count = np.zeros(coupling.classes), 0
    for inputs, targets in batches:
        change = np.zeros(coupling.classes)
        found = iter(gradients(inputs, targets))
        for record in coupling.records:
            for value, weight in zip(_values(record.layer), record.weights, strict=True):
                _add(change, value * np.asarray(next(found)), weight.axes, ("takes", "both"), np.sum)
        scores += change**2
        count += 1
    return normalised(coupling, np.sqrt(scores / max(1, count)))


def normalised(coupling: Coupling, scores: Scores) -> Scores:
    """The mean of every group becomes 1, so that scores compare between groups too."""
    found = scores.copy()
    for group in coupling.groups:
        mean = scores[group.classes].mean()
        if mean > 0:
            found[group.classes] = scores[group.classes] / mean
    return found


def _gradients(
    answer: Callable[[Any], Any], variables: list[Any], loss: Callable[[Any, Any], Any]
) -> Callable[[Any, Any], Sequence[Any]]:
    def gradients(inputs: Any, targets: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(variables)
            value = loss(answer(inputs), targets)
        return tape.gradient(value, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    compiled = tf.function(gradients, autograph=False, reduce_retracing=True)

    def dense(inputs: Any, targets: Any) -> list[Any]:
        return [tf.convert_to_tensor(gradient) for gradient in compiled(inputs, targets)]

    return dense


def _values(layer: Any) -> list[Array]:
    return list(layer.get_weights()) if hasattr(layer, "get_weights") else []


def _add(scores: Scores, values: Array, axes: Sequence[Any], roles: tuple[str, ...], over: Callable[..., Any]) -> None:
    for at, axis in enumerate(axes):
        if axis is not None and axis.role in roles:
            others = tuple(other for other in range(values.ndim) if other != at)
            np.add.at(scores, axis.labels, over(values, axis=others) if others else values)
