"""Small Keras models for tests of quantization, and what an artifact answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from agent.runtime import Model, installed, load, predict
from optimizer.data import Array

# Names whose alphabetical order is not the model's.
INPUTS, OUTPUTS = ("zebra", "apple"), ("zulu", "alpha")


def forked() -> Any:
    """Two inputs, `zebra` (8, 8, 1) and `apple` (6,); two outputs, `zulu` (4,) and `alpha` (3,)."""
    keras.utils.set_random_seed(0)
    zebra, apple = keras.Input((8, 8, 1), name=INPUTS[0]), keras.Input((6,), name=INPUTS[1])
    flow = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="conv")(zebra)
    flow = keras.layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depth")(flow)
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(flow)
    wide = keras.layers.Dense(200, activation="relu", name="wide")(apple)
    both = keras.layers.Concatenate(name="both")([pooled, wide])
    zulu = keras.layers.Dense(4, activation="softmax", name=OUTPUTS[0])(both)
    alpha = keras.layers.Dense(3, name=OUTPUTS[1])(both)
    return keras.Model([zebra, apple], [zulu, alpha], name="forked")


def rows_of(model: Any, count: int = 32) -> dict[str, Array]:
    random = np.random.default_rng(0)
    return {t.name: random.normal(size=(count, *t.shape[1:])).astype(np.float32) for t in model.inputs}


def float_answers(model: Any, rows: Mapping[str, Array]) -> dict[str, Array]:
    given = [rows[tensor.name] for tensor in model.inputs]
    found = keras.tree.flatten(model(given if len(given) > 1 else given[0], training=False))
    return {name: np.asarray(part) for name, part in zip(model.output_names, found, strict=True)}


def opened(content: bytes) -> Model:
    return load(content, runtimes=installed())


def sqnr_db(exact: Mapping[str, Array], content: bytes, rows: Mapping[str, Array]) -> float:
    """The least of all outputs."""
    answers = predict(opened(content), rows)
    noises = [np.square(exact[name] - answers[name]).sum() / np.square(exact[name]).sum() for name in exact]
    return float(-10 * np.log10(max(noises)))


def drawn_out(model: Any, layer: str, following: str, factor: float) -> None:
    """One channel of a layer becomes huge, and the next layer takes that back: computed exactly, answers stay."""
    kernel, bias = model.get_layer(layer).get_weights()
    channel = int(np.abs(kernel).sum(tuple(range(kernel.ndim - 1))).argmax())
    kernel[..., channel] *= factor
    bias[channel] *= factor
    model.get_layer(layer).set_weights([kernel, bias])
    kernel, bias = model.get_layer(following).get_weights()
    kernel[..., channel, :] /= factor
    model.get_layer(following).set_weights([kernel, bias])
