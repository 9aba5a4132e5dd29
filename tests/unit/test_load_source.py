"""A model file becomes a model with named inputs and outputs, however it was built."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from optimizer.sources import input_specs, load_source
from tests.prune_zoo import answers


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_sequential_model_is_read_like_any_other(tmp_path: Path) -> None:
    layers = [keras.Input((4,), name="x"), keras.layers.Dense(3, activation="relu"), keras.layers.Dense(2, name="y")]
    model = keras.Sequential(layers)
    model.save(tmp_path / "model.keras")
    loaded = load_source(tmp_path / "model.keras")
    rows = [np.ones((5, 4), np.float32)]
    assert loaded.output_names == ["y"]
    assert [spec.shape for spec in input_specs(loaded)] == [(4,)]
    assert answers(loaded, rows)[0].tolist() == answers(model, rows)[0].tolist()
