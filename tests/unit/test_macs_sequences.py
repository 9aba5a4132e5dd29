"""Multiply-accumulates of recurrent layers and attention, against sums made by hand."""

from __future__ import annotations

from typing import Any

import keras
import pytest

from optimizer.macs import of_keras

layers = keras.layers


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (layers.GRU(8), 5 * (4 * 24 + 8 * 24)),
        (layers.LSTM(8, return_sequences=True), 5 * (4 * 32 + 8 * 32)),
        (layers.SimpleRNN(8), 5 * (4 * 8 + 8 * 8)),
        (layers.Bidirectional(layers.GRU(8)), 2 * 5 * (4 * 24 + 8 * 24)),
        (layers.TimeDistributed(layers.Dense(6)), 5 * 4 * 6),
    ],
)
def test_a_recurrent_layer_multiplies_by_its_kernels_at_every_step(layer: Any, expected: int) -> None:
    assert of_keras(keras.Sequential([keras.Input((5, 4)), layer]).layers) == expected


def test_attention_multiplies_for_its_projections_and_for_every_pair_of_steps() -> None:
    x, seen = keras.Input((7, 6)), keras.Input((5, 4))
    model = keras.Model([x, seen], layers.MultiHeadAttention(2, 3, value_dim=8)(x, seen))
    query, key, value, out = 7 * 6 * 2 * 3, 5 * 4 * 2 * 3, 5 * 4 * 2 * 8, 7 * 2 * 8 * 6
    assert of_keras(model.layers) == query + key + value + out + 7 * 5 * 2 * (3 + 8)
