"""A user's program, for tests: it has TensorFlow imported, trains a model of Keras and optimizes it. Prints JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import keras
import numpy as np
from sklearn.datasets import load_digits

import optimizer


def main() -> None:
    keras.utils.set_random_seed(0)
    digits = load_digits()
    x, labels = (digits.data / 16).astype(np.float32), digits.target
    layers = [
        keras.Input((64,)),
        keras.layers.Dense(32, activation="relu"),
        keras.layers.Dense(10, activation="softmax"),
    ]
    model = keras.Sequential(layers)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x[:1000], labels[:1000], epochs=12, verbose=0)
    told: list[str] = []

    def progress(step: str, profile: str, fraction: float, detail: str) -> None:
        assert 0 <= fraction <= 1
        told.append(step)

    result = optimizer.optimize(model, (x, labels), recipe="ptq", name="digits", progress=progress)
    built = result.artifacts["x86-cpu"]
    saved = result.save(Path(sys.argv[1]))
    fine = keras.ops.convert_to_numpy(model(x[:4]))
    answer = {
        "bytes": built.bytes,
        "accuracy": built.accuracy,
        "file": built.path.name,
        "saved": sorted(path.name for path in saved.iterdir()),
        "told": sorted(set(told)),
        "text": str(result),
        "page": result.page.startswith("<!doctype html>"),
        "still works": bool(np.isfinite(fine).all()),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
