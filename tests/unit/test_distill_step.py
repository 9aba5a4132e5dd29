"""The pass that teaches: the model itself, a student, or a student's shapes with new weights on labels alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from optimizer.distill_step import distill_source
from optimizer.errors import RefusedError
from optimizer.sources import load_source
from tests import prune_zoo as zoo
from tests.prune_zoo import built, rows_for

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
layers = keras.layers
SETTINGS = {"tuning": {"epochs": 8, "rate": 2e-2, "batch": 32}}


def silent(fraction: float, detail: str) -> None:
    assert 0 <= fraction <= 1


def net(units: int, inputs: int = 4, outputs: int = 2) -> Any:
    keras.utils.set_random_seed(units)
    return keras.Sequential(
        [keras.Input((inputs,), name="x"), layers.Dense(units, "relu"), layers.Dense(outputs, "softmax")]
    )


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """A source, a smaller student, and 256 labelled rows of each split."""
    x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
    arrays = {f"{split}/x": x for split in ("train", "validation", "test")}
    labels = {f"{split}/y": (x[:, 0] > 0).astype(np.int64) for split in ("train", "validation", "test")}
    np.savez(tmp_path / "data.npz", allow_pickle=False, **arrays, **labels)
    for name, units in (("source", 24), ("student", 6)):
        net(units).save(tmp_path / f"{name}.keras")
    return {name: tmp_path / f"{name}.keras" for name in ("source", "student")} | {"data": tmp_path / "data.npz"}


def test_a_student_is_taught_and_what_it_took_stands_in_the_manifest(inputs: dict[str, Path], tmp_path: Path) -> None:
    manifest = distill_source(inputs, SETTINGS, tmp_path, silent)
    student = load_source(tmp_path / "model.keras")
    assert json.loads(json.dumps(manifest)) == manifest
    assert manifest["after"] == {"parameters": student.count_params(), "macs": 6 * 6}
    assert (manifest["steps"], manifest["epochs"], manifest["seed"]) == (64, 8, 0)
    assert manifest["wall_s"] > manifest["epoch_s"] > 0
    assert all(0 < manifest["accuracy"][when] < 1 for when in ("before", "after"))
    x = np.random.default_rng(1).normal(size=(64, 4)).astype("float32")
    source, begun = load_source(inputs["source"]), load_source(inputs["student"])
    apart = [np.abs(np.asarray(source(x)) - np.asarray(model(x))).mean() for model in (begun, student)]
    assert apart[1] < apart[0] / 2


def test_without_a_student_the_model_itself_is_taught(inputs: dict[str, Path], tmp_path: Path) -> None:
    del inputs["student"]
    manifest = distill_source(inputs, SETTINGS, tmp_path, silent)
    assert manifest["after"]["parameters"] == load_source(inputs["source"]).count_params()


def test_from_scratch_begins_with_new_weights_of_the_seed_and_learns_from_labels(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    found = []
    for at, seed in enumerate((1, 1, 2)):
        (out := tmp_path / str(at)).mkdir()
        tuning = {"steps": 40, "rate": 2e-2, "seed": seed}
        manifest = distill_source(inputs, {"start": "scratch", "teach": False, "tuning": tuning}, out, silent)
        assert manifest["steps"] == 40
        assert manifest["accuracy"]["after"] > 0.8
        found.append(load_source(out / "model.keras").get_weights()[0])
    assert found[0].shape == (4, 6)
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()
    begun = distill_source(inputs, {"start": "scratch", "teach": False, "tuning": {"epochs": 0}}, tmp_path, silent)
    assert begun["steps"] == 0
    assert (
        load_source(tmp_path / "model.keras").get_weights()[0] != load_source(inputs["student"]).get_weights()[0]
    ).all()


@pytest.mark.parametrize(
    ("student", "message"), [(net(6, inputs=5), "inputs"), (net(6, outputs=3), "outputs")], ids=["inputs", "outputs"]
)
def test_a_student_of_other_inputs_or_outputs_is_refused(
    inputs: dict[str, Path], tmp_path: Path, student: Any, message: str
) -> None:
    student.save(inputs["student"])
    with pytest.raises(RefusedError, match=f"student has {message}"):
        distill_source(inputs, SETTINGS, tmp_path, silent)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tuning": {"alpha": 2}}, "alpha"),
        ({"amount": 1}, "amount"),
        ({"start": "middle"}, "middle"),
        ({"teach": False, "tuning": {"mix": 0.2}}, "need a teacher"),
        ({"teach": False, "tuning": {"features": 1.0}}, "need a teacher"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(
    inputs: dict[str, Path], tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(RefusedError, match=message):
        distill_source(inputs, settings, tmp_path, silent)


def test_a_model_of_several_outputs_learns_without_labels_and_from_labels_alone_nothing(tmp_path: Path) -> None:
    model = built(zoo.dense_net)
    model.save(tmp_path / "source.keras")
    (rows,) = rows_for(model, 64)
    arrays = {f"{split}/{model.inputs[0].name}": rows for split in ("calibration", "validation", "test")}
    np.savez(tmp_path / "data.npz", allow_pickle=False, **arrays)
    inputs = {"source": tmp_path / "source.keras", "data": tmp_path / "data.npz"}
    manifest = distill_source(inputs, {"tuning": {"epochs": 1}, "start": "scratch"}, tmp_path, silent)
    assert manifest["accuracy"] == {"before": None, "after": None}
    with pytest.raises(RefusedError, match="labels"):
        distill_source(inputs, {"teach": False}, tmp_path, silent)
