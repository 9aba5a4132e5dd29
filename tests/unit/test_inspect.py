"""The float model, of whatever kind: which rows it is asked about, and what it leaves for the gates."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from agent.contract.golden import accuracy, read_acceptance, read_parity, write_acceptance
from optimizer.errors import RefusedError
from optimizer.inspect import inspect_source
from optimizer.inspect_tflite import inspect_tflite

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
ROWS = {"train": 40, "calibration": 20, "validation": 90, "test": 50}
CLASSES = 3
Inspect = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model as .keras, SavedModel and .tflite; a model of two outputs; data with and without labels."""
    made = tmp_path_factory.mktemp("inspect")
    keras.utils.set_random_seed(0)
    x = keras.Input((6,), name="x")
    # The converter drops biases that are zero.
    hidden = keras.layers.Dense(8, activation="relu", bias_initializer="random_normal", name="hidden")(x)
    last = keras.layers.Dense(CLASSES, activation="softmax", bias_initializer="random_normal", name="scores")
    scores = last(hidden)
    model = keras.Model(x, scores)
    model.save(made / "model.keras")
    model.export(made / "saved", verbose=False)
    (made / "model.tflite").write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(made / "saved")).convert())
    keras.Model(x, {"scores": scores, "hidden": hidden}).save(made / "two.keras")
    random = np.random.default_rng(0)
    rows = {f"{split}/x": random.normal(size=(count, 6)).astype(np.float32) for split, count in ROWS.items()}
    labels = {f"{split}/labels": random.integers(0, CLASSES, count) for split, count in ROWS.items()}
    np.savez(made / "labelled.npz", allow_pickle=False, **rows, **labels)
    np.savez(made / "unlabelled.npz", allow_pickle=False, **rows)
    kept = {name: rows[name] for name in ("calibration/x", "validation/x")}
    np.savez(made / "two_splits.npz", allow_pickle=False, **kept)
    return made


@pytest.fixture
def inspect(folder: Path, tmp_path: Path) -> Inspect:
    def run(source: str = "model.keras", data: str = "labelled.npz", **changed: Any) -> dict[str, Any]:
        inputs = {"source": folder / source, "data": folder / data}
        if "acceptance" in changed:
            inputs["acceptance"] = changed.pop("acceptance")
        work = inspect_tflite if source.endswith(".tflite") else inspect_source
        manifest = work(inputs, {"labels": [], "seed": 0, **changed}, tmp_path, lambda *_: None)
        assert json.loads(json.dumps(manifest)) == manifest
        return manifest

    return run


def outputs_in(tmp_path: Path) -> dict[str, Any]:
    with np.load(tmp_path / "outputs.npz") as found:
        return {name: found[name] for name in found.files}


@pytest.mark.parametrize("source", ["model.keras", "saved", "model.tflite"])
def test_every_kind_gives_the_same_figures_outputs_and_golden_sets(
    inspect: Inspect, folder: Path, tmp_path: Path, source: str
) -> None:
    manifest = inspect(source)
    found = outputs_in(tmp_path)
    (name,) = {key.removeprefix("test/") for key in found if key.startswith("test/") and key != "test/"}
    model = keras.saving.load_model(folder / "model.keras")
    with np.load(folder / "labelled.npz") as data:
        for split in ("validation", "test"):
            expected = np.asarray(model.predict(data[f"{split}/x"], verbose=0))
            np.testing.assert_allclose(found[f"{split}/{name}"], expected, atol=1e-5)
            np.testing.assert_array_equal(found[f"{split}/"], data[f"{split}/labels"])
            assert manifest[f"accuracy_{split}"] == accuracy(data[f"{split}/labels"], expected)
            assert manifest["splits"][split]["rows"] == ROWS[split]
    assert manifest["parameters"] == 6 * 8 + 8 + 8 * 3 + 3
    assert manifest["macs"] == 6 * 8 + 8 * 3
    assert manifest["classes"] == CLASSES
    assert [spec["shape"] for spec in manifest["inputs"]] == [[6]]
    assert manifest["outputs"] == [{"name": name, "shape": [3]}]
    parity = read_parity((tmp_path / "parity.npz").read_bytes())
    expected = np.asarray(model.predict(next(iter(parity.inputs.values())), verbose=0))
    np.testing.assert_allclose(parity.outputs[name], expected, atol=1e-5)
    acceptance = read_acceptance((tmp_path / "acceptance.npz").read_bytes())
    assert len(acceptance.labels) == ROWS["validation"]
    assert manifest["accuracy_acceptance"] == manifest["accuracy_validation"]


@pytest.mark.parametrize("source", ["model.keras", "saved", "model.tflite"])
def test_test_is_not_looked_at_unless_it_is_asked_for(inspect: Inspect, tmp_path: Path, source: str) -> None:
    manifest = inspect(source, splits=["validation"])
    assert list(manifest["splits"]) == ["validation"]
    assert manifest["accuracy_test"] is None
    assert not any(name.startswith("test/") for name in outputs_in(tmp_path))


def test_a_test_split_that_cannot_be_read_does_no_harm_where_it_is_not_asked_for(
    inspect: Inspect, folder: Path
) -> None:
    with np.load(folder / "labelled.npz") as data:
        arrays: dict[str, Any] = {name: data[name] for name in data.files}
    np.savez(folder / "bad_test.npz", allow_pickle=False, **{**arrays, "test/x": np.full((50, 6), np.nan)})
    assert inspect(data="bad_test.npz", splits=["validation"])["judged"]
    with pytest.raises(RefusedError, match="test/x holds values that are not finite"):
        inspect(data="bad_test.npz")


@pytest.mark.parametrize("data", ["unlabelled.npz", "two_splits.npz"])
def test_without_labels_there_are_outputs_to_compare_with_and_no_accuracy(
    inspect: Inspect, tmp_path: Path, data: str
) -> None:
    manifest = inspect(data=data)
    assert not manifest["judged"]
    assert {manifest[f"accuracy_{what}"] for what in ("validation", "test", "acceptance")} == {None}
    assert len(outputs_in(tmp_path)["validation/scores"]) == ROWS["validation"]
    assert "validation/" not in outputs_in(tmp_path)


def test_several_outputs_have_no_classes_and_all_of_them_are_kept(inspect: Inspect, tmp_path: Path) -> None:
    manifest = inspect("two.keras")
    assert manifest["classes"] == 0
    assert not manifest["judged"]
    parity = read_parity((tmp_path / "parity.npz").read_bytes())
    assert {name: array.shape[1:] for name, array in parity.outputs.items()} == {"scores": (3,), "hidden": (8,)}
    np.testing.assert_allclose(parity.outputs["scores"].sum(axis=1), 1, atol=1e-5)


def test_the_first_versions_acceptance_set_stays_byte_for_byte(inspect: Inspect, folder: Path, tmp_path: Path) -> None:
    inspect()
    first = folder / "first.npz"
    first.write_bytes((tmp_path / "acceptance.npz").read_bytes())
    inspect(seed=5, acceptance=first, splits=["validation"])
    assert (tmp_path / "acceptance.npz").read_bytes() == first.read_bytes()
    other = read_acceptance(first.read_bytes())
    first.write_bytes(write_acceptance(other._replace(inputs={"y": other.inputs["x"]})))
    with pytest.raises(RefusedError, match="name the inputs alike"):
        inspect(acceptance=first)


def test_label_names_must_be_as_many_as_classes(inspect: Inspect) -> None:
    inspect(labels=["a", "b", "c"])
    with pytest.raises(RefusedError, match="2 label names were given, the model has 3 classes"):
        inspect(labels=["a", "b"])
