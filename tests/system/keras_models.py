"""Writes Keras models for tests into the folder given as argument. A process of its own: it needs TensorFlow."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

layers = keras.layers


def with_lambda() -> Any:
    x = keras.Input((8, 8, 1), name="image")
    flow = layers.Flatten()(layers.Lambda(lambda value: value * 2)(x))
    return keras.Model(x, layers.Dense(10, activation="softmax")(flow))


def two_inputs() -> Any:
    """Two inputs, a regression: no classes."""
    a, b = keras.Input((6,), name="a"), keras.Input((3,), name="b")
    flow = layers.Dense(16, activation="relu")(layers.Concatenate()([a, b]))
    return keras.Model([a, b], [layers.Dense(1, name="height")(flow), layers.Dense(2, name="place")(flow)])


def unknown_size() -> Any:
    x = keras.Input((None, 4), name="x")
    return keras.Model(x, layers.Dense(2, activation="softmax")(layers.GlobalAveragePooling1D()(x)))


def with_gelu() -> Any:
    """Holds an operator that the FPGA's profile does not allow."""
    x = keras.Input((8, 8, 1), name="image")
    flow = layers.Dense(16, activation="gelu")(layers.Flatten()(x))
    decided = keras.initializers.RandomNormal(stddev=3.0)
    return keras.Model(x, layers.Dense(10, activation="softmax", kernel_initializer=decided, name="scores")(flow))


def main() -> None:
    out = Path(sys.argv[1])
    keras.utils.set_random_seed(0)
    for build in (with_lambda, two_inputs, unknown_size, with_gelu):
        build().save(out / f"{build.__name__}.keras")
    random = np.random.default_rng(0)
    splits: dict[str, Any] = {}
    for split in ("calibration", "validation", "test"):
        splits |= {f"{split}/a": random.normal(size=(40, 6)), f"{split}/b": random.normal(size=(40, 3))}
    np.savez(out / "two_inputs.npz", **splits)


if __name__ == "__main__":
    main()
