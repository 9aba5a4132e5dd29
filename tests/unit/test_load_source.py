"""A model file becomes a model with named inputs and outputs, however it was built."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

from optimizer.sources import input_specs, load_source


def test_a_sequential_model_is_read_like_any_other(tmp_path: Path) -> None:
    layers = [keras.Input((4,), name="x"), keras.layers.Dense(3, activation="relu"), keras.layers.Dense(2, name="y")]
    model = keras.Sequential(layers)
    model.save(tmp_path / "model.keras")
    loaded = load_source(tmp_path / "model.keras")
    assert loaded.output_names == ["y"]
    assert [spec.shape for spec in input_specs(loaded)] == [(4,)]
    for ours, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
