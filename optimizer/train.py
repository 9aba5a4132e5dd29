"""Trains a Keras classifier and tells how far it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from optimizer.data import Array

_BATCH = 32
Rows = tuple[Array, Array]
"""Inputs (rows, ...) and class indices (rows,)."""


def fit(model: Any, rows: Rows, check: Rows, epochs: int, tell: Callable[[float, str], None]) -> None:
    """Train on `rows` (inputs, class indices) with a learning rate that falls to zero; `check` is only watched.

    `tell(fraction, detail)` after every batch.
    """
    steps = -(-len(rows[1]) // _BATCH)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, decay_steps=steps * epochs)
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    told = [_teller(steps, epochs, tell)]
    model.fit(*rows, batch_size=_BATCH, epochs=epochs, validation_data=check, verbose=0, callbacks=told)


def _teller(steps: int, epochs: int, tell: Callable[[float, str], None]) -> Any:
    """A callback that tells how far the training is."""
    epoch, accuracy = 0, ""

    def on_epoch_begin(epoch_number: int, logs: object) -> None:
        nonlocal epoch
        epoch = epoch_number

    def on_train_batch_end(batch: int, logs: object) -> None:
        done = (epoch * steps + batch + 1) / (epochs * steps)
        tell(min(done, 0.99), f"epoch {epoch + 1} of {epochs}{accuracy}")

    def on_epoch_end(number: int, logs: dict[str, float]) -> None:
        nonlocal accuracy
        accuracy = f", accuracy {logs['val_accuracy']:.3f}"

    return keras.callbacks.LambdaCallback(
        on_epoch_begin=on_epoch_begin, on_train_batch_end=on_train_batch_end, on_epoch_end=on_epoch_end
    )
