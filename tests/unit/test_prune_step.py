"""The step: files in, files out, and settings that are refused before any work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from optimizer.errors import RefusedError
from optimizer.prune.step import prune_source
from optimizer.sources import load_source
from tests import prune_zoo as zoo
from tests.prune_zoo import built, rows_for

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SETTINGS = {"budget": 0.5, "rounds": 1, "rows": 64, "after": {"epochs": 1, "dropout": 0.0}, "least": {"channels": 2}}


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """A source of two inputs, with rows of calibration and validation that have no labels."""
    model = built(zoo.attention)
    model.save(tmp_path / "source.keras")
    arrays = {
        f"{split}/{tensor.name}": part
        for split in ("calibration", "validation", "test")
        for tensor, part in zip(model.inputs, rows_for(model, 64), strict=True)
    }
    np.savez(tmp_path / "data.npz", allow_pickle=False, **arrays)
    return {"source": tmp_path / "source.keras", "data": tmp_path / "data.npz"}


def test_a_pruned_source_is_a_source_with_a_manifest(inputs: dict[str, Path], tmp_path: Path) -> None:
    told: list[float] = []
    manifest = prune_source(inputs, SETTINGS, tmp_path, lambda fraction, detail: told.append(fraction))
    pruned = load_source(tmp_path / "model.keras")
    assert json.loads(json.dumps(manifest)) == manifest
    assert manifest["after"]["parameters"] == pruned.count_params() <= 0.5 * manifest["before"]["parameters"]
    assert manifest["groups"]["across/num_heads"] == {
        "channels": 4,
        "free": 4,
        "kept": pruned.get_layer("across").num_heads,
    }
    assert manifest["barriers"] == []
    assert pruned.get_layer("across").num_heads >= 2
    assert told[0] == 0
    assert told[-1] == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": 0}, "budget"),
        ({"rounds": 0}, "rounds"),
        ({"importance": "luck"}, "luck"),
        ({"amount": 1}, "amount"),
        ({"after": {"alpha": 2}}, "alpha"),
        ({"budget": 1e-4}, "larger budget"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(
    inputs: dict[str, Path], tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(RefusedError, match=message):
        prune_source(inputs, SETTINGS | settings, tmp_path, lambda fraction, detail: None)


def test_data_with_train_and_labels_teaches_by_them(inputs: dict[str, Path], tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
    model = keras.Sequential(
        [keras.Input((4,), name="x"), keras.layers.Dense(16, "relu"), keras.layers.Dense(2, "softmax")]
    )
    model.save(tmp_path / "source.keras")
    splits = ("train", "validation", "test")
    labels = {f"{split}/y": (x[:, 0] > 0).astype(np.int64) for split in splits}
    np.savez(tmp_path / "data.npz", allow_pickle=False, **{f"{split}/x": x for split in splits}, **labels)
    told: list[str] = []
    manifest = prune_source(inputs, SETTINGS, tmp_path, lambda fraction, detail: told.append(detail))
    assert manifest["after"]["parameters"] <= 0.5 * manifest["before"]["parameters"]
    assert manifest["steps"] == manifest["rounds"][0]["steps"] == 4
    assert manifest["wall_s"] > manifest["epoch_s"] > 0
    assert 0 <= manifest["accuracy"]["before"] <= 1
    assert 0 <= manifest["accuracy"]["after"] <= 1
    assert manifest["seed"] == 0
    assert any("epoch 1 of 1, accuracy 0." in detail for detail in told)


def test_a_budget_of_all_leaves_the_source_bit_by_bit(inputs: dict[str, Path], tmp_path: Path) -> None:
    manifest = prune_source(inputs, SETTINGS | {"budget": 1.0}, tmp_path, lambda fraction, detail: None)
    assert manifest["steps"] == 0
    assert manifest["after"] == manifest["before"]
    before, after = load_source(inputs["source"]), load_source(tmp_path / "model.keras")
    assert before.to_json() == after.to_json()
    for old, new in zip(before.get_weights(), after.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
