"""The two networks, untrained, with softmax."""

from __future__ import annotations

from typing import Any

import keras


def net(kind: str, quick: bool) -> Any:
    """The network called "mlp" or "cnn"; a quick one's BatchNorm forgets sooner, as it sees few batches."""
    return mlp() if kind == "mlp" else cnn(0.9 if quick else 0.99)


def mlp() -> Any:
    """784-800-400-10 with dropout: 952,410 parameters."""
    inputs = hidden = keras.Input((784,), name="pixels")
    for units in (800, 400):
        hidden = keras.layers.Dense(units, activation="relu")(hidden)
        hidden = keras.layers.Dropout(0.3)(hidden)
    return keras.Model(inputs, keras.layers.Dense(10, activation="softmax", name="scores")(hidden))


def cnn(momentum: float) -> Any:
    """Four 3x3 convolutions of 16 to 128 channels with BatchNorm, the mean of all places: 99,162 parameters."""
    inputs = hidden = keras.Input((28, 28, 1), name="picture")
    for at, filters in enumerate((16, 32, 64, 128)):
        hidden = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(hidden)
        hidden = keras.layers.BatchNormalization(momentum=momentum)(hidden)
        hidden = keras.layers.ReLU()(hidden)
        if at < 3:
            hidden = keras.layers.MaxPooling2D(padding="same")(hidden)
    hidden = keras.layers.Dropout(0.3)(keras.layers.GlobalAveragePooling2D()(hidden))
    return keras.Model(inputs, keras.layers.Dense(10, activation="softmax", name="scores")(hidden))
