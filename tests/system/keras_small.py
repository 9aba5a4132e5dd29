"""Trains and writes the smallest Keras classifier that an optimizer run takes, with its data: a script for a process of
its own."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np


def main(folder: Path) -> None:
    import keras
    from keras import layers

    x = np.random.default_rng(0).normal(size=(1000, 16)).astype(np.float32)
    y = x[:, :4].argmax(1)
    hidden, scores = layers.Dense(8, activation="relu"), layers.Dense(4, activation="softmax", name="scores")
    model = keras.Sequential([keras.Input((16,), name="x"), hidden, scores])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=30, verbose=0)
    model.save(folder / "source.keras")
    np.savez(folder / "data.npz", x=x, y=y)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
