"""Every kind of layer that pruning knows, by itself: it loses its share, and the model around it still computes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from optimizer.prune.coupling import couple
from optimizer.prune.ledger import size_of
from optimizer.prune.sensitivity import masked
from optimizer.prune.surgery import cut
from tests.prune_zoo import answers, built, halved, rows_for

layers = keras.layers
PICTURE, WAVE = (6, 6, 3), (8, 3)


def pair(join: Any) -> Any:
    """A layer that takes two tensors, both made from what it is given."""
    return lambda flow: join([flow, layers.Dense(8, "sigmoid", name="gate")(flow)])


def heads(flow: Any) -> Any:
    return layers.MultiHeadAttention(4, 4)(flow, flow)


KINDS: dict[str, tuple[tuple[int, ...], Any]] = {
    "Dense": ((5,), layers.Dense(10)),
    "Conv1D": (WAVE, layers.Conv1D(10, 3)),
    "Conv2D": (PICTURE, layers.Conv2D(10, 3)),
    "DepthwiseConv1D": (WAVE, layers.DepthwiseConv1D(3)),
    "DepthwiseConv2D": (PICTURE, layers.DepthwiseConv2D(3)),
    "SeparableConv1D": (WAVE, layers.SeparableConv1D(10, 3)),
    "SeparableConv2D": (PICTURE, layers.SeparableConv2D(10, 3)),
    "BatchNormalization": (PICTURE, layers.BatchNormalization()),
    "LayerNormalization": (WAVE, layers.LayerNormalization()),
    "GRU": (WAVE, layers.GRU(10, return_sequences=True)),
    "LSTM": (WAVE, layers.LSTM(10, return_sequences=True)),
    "MultiHeadAttention": (WAVE, heads),
    "MaxPooling1D": (WAVE, layers.MaxPooling1D()),
    "AveragePooling2D": (PICTURE, layers.AveragePooling2D(2)),
    "MaxPooling2D": (PICTURE, layers.MaxPooling2D()),
    "GlobalAveragePooling1D": (WAVE, layers.GlobalAveragePooling1D()),
    "GlobalMaxPooling2D": (PICTURE, layers.GlobalMaxPooling2D()),
    "Flatten": (PICTURE, layers.Flatten()),
    "Add": (PICTURE, pair(layers.Add())),
    "Concatenate": (PICTURE, pair(layers.Concatenate())),
    "Multiply": (PICTURE, pair(layers.Multiply())),
    **{
        name: (PICTURE, layers.Activation(name))
        for name in (
            "relu",
            "relu6",
            "gelu",
            "silu",
            "sigmoid",
            "tanh",
            "elu",
            "leaky_relu",
            "hard_sigmoid",
            "softplus",
        )
    },
    "PReLU": (PICTURE, layers.PReLU(shared_axes=[1, 2])),
}
NOT_EXACT = {"LayerNormalization"}
"""What is left is averaged anew."""


def around(shape: tuple[int, ...], kind: Any) -> Any:
    """A stem of eight channels, the layer, and a head."""
    x = keras.Input(shape)
    flow = layers.Flatten()(kind(layers.Dense(8, name="stem")(x)))
    return keras.Model(x, layers.Dense(3, name="head")(flow))


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_of_layer_is_cut_with_what_is_before_it(kind: str) -> None:
    _check(built(lambda: around(*KINDS[kind])), exact=kind not in NOT_EXACT)


def test_an_embedding_is_cut() -> None:
    x = keras.Input((6,), dtype="int32")
    _check(built(lambda: keras.Model(x, layers.Dense(3)(layers.Flatten()(layers.Embedding(20, 8, name="stem")(x))))))


def _check(model: Any, exact: bool = True) -> None:
    coupling, rows = couple(model), rows_for(model)
    assert coupling.barriers == ()
    kept = halved(coupling)
    smaller = cut(model, coupling, kept)
    assert smaller.count_params() == size_of(coupling, kept).parameters < model.count_params()
    stem = next(name for group in coupling.prunable() for name in group.axes if name.startswith("stem/"))
    assert sum(stem in group.axes for group in coupling.prunable()) == 1
    with masked(coupling, kept):
        expected = answers(model, rows)[0]
    found = answers(smaller, rows)[0]
    assert np.isfinite(found).all()
    if exact:
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)
