"""How weights move: the optimizer, its learning rate over the steps, and what holds kernels small."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from optimizer.tuning import Tuning


class Rate(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """The learning rate at every step of `steps`: it rises over the warm-up, then falls as the settings say."""

    def __init__(self, settings: Tuning, steps: int) -> None:
        self._settings, self._steps = settings, max(1, steps)
        self._rising = math.ceil(settings.warmup * steps)

    def __call__(self, step: Any) -> Any:
        at = tf.cast(step, tf.float32)
        done = tf.clip_by_value((at - self._rising) / max(1, self._steps - self._rising), 0.0, 1.0)
        falling = self._settings.rate * _left(self._settings.schedule, done)
        return tf.where(at < self._rising, self._settings.rate * (at + 1) / max(1, self._rising), falling)

    def get_config(self) -> dict[str, Any]:
        return {"settings": self._settings, "steps": self._steps}


def _left(schedule: str, done: Any) -> Any:
    """The share of the rate that is left when `done` of the way is."""
    if schedule == "cosine":
        return (1 + tf.cos(math.pi * done)) / 2
    if schedule == "linear":
        return 1 - done
    if schedule == "step":
        return tf.where(done < 0.5, 1.0, tf.where(done < 0.75, 0.1, 0.01))
    return tf.ones_like(done)


def optimizer_of(settings: Tuning, variables: Sequence[Any], steps: int) -> Any:
    """A Keras optimizer built for the variables; gradients are clipped to a norm of 1."""
    rate = Rate(settings, steps)
    found: Any
    if settings.optimizer == "sgd":
        found = keras.optimizers.SGD(rate, momentum=settings.momentum, global_clipnorm=1.0)
    elif settings.optimizer == "adam":
        found = keras.optimizers.Adam(rate, global_clipnorm=1.0)
    else:
        found = keras.optimizers.AdamW(rate, weight_decay=settings.decay, global_clipnorm=1.0)
        found.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    found.build(list(variables))
    return found


def penalty_of(settings: Tuning, variables: Sequence[Any]) -> Callable[[], Any]:
    """What `l1` and `l2` add to the loss; biases, scales and embeddings stay free."""
    kernels = [variable for variable in variables if "kernel" in variable.name]

    def penalty() -> Any:
        total: Any = 0.0
        for kernel in kernels if settings.l1 > 0 or settings.l2 > 0 else ():
            value = tf.convert_to_tensor(kernel)
            total += settings.l1 * tf.reduce_sum(tf.abs(value)) + settings.l2 * tf.reduce_sum(tf.square(value))
        return total

    return penalty
