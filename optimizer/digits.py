"""The example "digits": scikit-learn's 1,797 real handwritten digits and a small CNN. Runs in a TensorFlow child.

E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
from sklearn.datasets import load_digits

from agent.contract.golden import accuracy
from optimizer.data import Array
from optimizer.passes import Inputs, Progress
from optimizer.train import fit

INPUT = "image"
_TRAIN, _VALIDATION = 1000, 400
_ENLARGED = 64


def make_digits(inputs: Inputs, settings: dict[str, Any], out: Path, progress: Progress) -> dict[str, Any]:
    """The pass. Writes model.keras, data.npz, batch.npz and seven.png.

    Takes `epochs`, `seed`, `channels` (filters per layer); `wrong_labels` turns every label into its successor: a
    version that is faithfully converted, scores well on its own data, and is of no use.
    """
    seed = settings["seed"]
    keras.utils.set_random_seed(seed)
    images, labels = _load()
    order = np.random.default_rng(0).permutation(len(images))
    train, validation, test = np.split(order, [_TRAIN, _TRAIN + _VALIDATION])
    taught = (labels + 1) % 10 if settings["wrong_labels"] else labels
    model = network(settings["channels"])
    progress(0.0, "training")
    fit(model, (images[train], taught[train]), (images[validation], taught[validation]), settings["epochs"], progress)
    scores = model.predict(images[test], verbose=0)
    model.save(out / "model.keras", include_optimizer=False)
    splits = {"train": train, "validation": validation, "test": test}
    arrays: dict[str, Any] = {f"{split}/{INPUT}": images[rows] for split, rows in splits.items()}
    arrays |= {f"{split}/labels": taught[rows] for split, rows in splits.items()}
    np.savez_compressed(out / "data.npz", **arrays)
    batch: dict[str, Any] = {INPUT: images, "labels": labels}
    np.savez_compressed(out / "batch.npz", **batch)
    (out / "seven.png").write_bytes(_picture(images[_sure_seven(test, scores, labels, taught)]))
    progress(1.0, "trained")
    return {"accuracy": accuracy(taught[test], scores), "parameters": int(model.count_params())}


def network(channels: list[int]) -> Any:
    """Image (8, 8, 1) -> scores (10,): 3 x 3 convolutions, batch normalization, global average, softmax."""
    flow = image = keras.Input((8, 8, 1), name=INPUT)
    for at, filters in enumerate(channels):
        flow = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"conv{at}")(flow)
        flow = keras.layers.BatchNormalization(momentum=0.8, name=f"norm{at}")(flow)
        flow = keras.layers.ReLU(name=f"relu{at}")(flow)
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(flow)
    return keras.Model(image, keras.layers.Dense(10, activation="softmax", name="scores")(pooled), name="digits")


def _load() -> tuple[Array, Array]:
    digits = load_digits()
    return (digits.images / 16).astype(np.float32)[..., None], digits.target.astype(np.int64)


def _sure_seven(test: Array, scores: Array, labels: Array, taught: Array) -> int:
    """The test picture of a seven that the model is surest about, among those it got right."""
    seven = np.flatnonzero(labels[test] == 7)
    column = int(taught[test][seven[0]])
    return int(test[seven[scores[seven][:, column].argmax()]])


def _picture(image: Array) -> bytes:
    """A PNG, dark on light, enlarged; grey values 0 to 255."""
    grey = (255 - np.round(image[..., 0] * 255)).astype(np.uint8)
    pixels = grey.repeat(_ENLARGED // 8, axis=0).repeat(_ENLARGED // 8, axis=1)
    raw = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", _ENLARGED, _ENLARGED, 8, 0, 0, 0, 0)
    chunks = (_chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(raw)), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
