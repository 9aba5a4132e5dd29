"""Passes in the process of Keras 2: what they make, and what they say of what they cannot."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from agent.contract.children import environment
from agent.contract.golden import accuracy
from agent.runtime import load, predict
from optimizer.errors import OptimizerError
from optimizer.flatfile import Flatfile, is_int8
from optimizer.lines import LineReader
from optimizer.steps import ForkedSteps, Work

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
RUNTIMES = ("ai-edge-litert",)
TUNING = {"epochs": 10, "batch": 32, "rate": 1e-3, "dropout": 0.0}
Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("legacy")


@pytest.fixture(scope="module")
def told() -> list[str]:
    """Every progress of every pass."""
    return []


@pytest.fixture(scope="module")
def run(folder: Path, told: list[str]) -> Iterator[Run]:
    """Do a pass on `source` into a folder of its name; returns its manifest."""
    reading, writing = os.pipe()
    steps = ForkedSteps(LineReader(reading), lambda message: False)

    def go(name: str, source: str, settings: dict[str, Any], out: str) -> dict[str, Any]:
        (folder / out).mkdir(exist_ok=True)
        inputs = {"source": folder / source, "data": folder / "digits/data.npz"} if source else {}
        work = Work(name, inputs, settings, folder / out)
        return steps.run(work, lambda fraction, detail: told.append(detail)).result

    yield go
    steps.close()
    os.close(writing)
    os.close(reading)


@pytest.fixture(scope="module")
def digits(run: Run) -> str:
    run("digits", "", {"epochs": 30, "seed": 1, "channels": [16, 32], "wrong_labels": False}, "digits")
    return "digits/model.keras"


def test_a_model_answers_alike_in_keras_2_and_back_or_is_refused_by_name() -> None:
    script = [sys.executable, "-m", "tests.system.keras_counterparts"]
    legacy = environment({"TF_USE_LEGACY_KERAS": "1", "PYTHONSAFEPATH": ""})
    said = json.loads(subprocess.run(script, check=True, capture_output=True, env=legacy).stdout)
    assert "Relu6" in said.pop("waves")["refused"]
    assert "NotEqual" in said.pop("masked_tokens")["refused"]
    for name, found in said.items():
        assert found["there"] <= 1e-5, name
        assert found["back"] <= 1e-5, name
        assert found["folded"] <= 1e-4, name
    assert said["shared"]["outputs"] == 2


def test_sparsity_is_reached_and_zeros_survive_int8(run: Run, digits: str, folder: Path, told: list[str]) -> None:
    settings = {"final": 0.6, "frequency": 5, "tuning": TUNING}
    manifest = run("sparsify", digits, settings, "sparse")
    assert manifest["zeros_pruned"] == pytest.approx(0.6, abs=0.01)
    assert manifest["steps"] == 320
    assert manifest["layers"]["conv1"]["zeros"] == pytest.approx(0.6, abs=0.01)
    assert any(re.match(r"epoch \d+ of 10, accuracy 0\.\d", detail) for detail in told)
    kernel = keras.saving.load_model(folder / "sparse/model.keras").get_layer("conv1").get_weights()[0]
    assert (kernel == 0).mean() == pytest.approx(0.6, abs=0.01)
    run("quantize", "sparse/model.keras", NUMBERS, "sparse-int8")
    run("quantize", digits, NUMBERS, "dense-int8")
    sparse, dense = (folder / f"{name}-int8/model.tflite" for name in ("sparse", "dense"))
    zeros = int8_zeros(sparse.read_bytes())
    assert 0.58 <= zeros <= 0.66
    assert abs(sparse.stat().st_size - dense.stat().st_size) < 0.02 * dense.stat().st_size
    packed = [len(zlib.compress(path.read_bytes(), 9)) for path in (sparse, dense)]
    assert packed[0] < 0.8 * packed[1]
    print(f"zeros {zeros:.3f} in the .tflite; {packed[1]} bytes compressed became {packed[0]}")


def test_of_every_four_weights_in_a_row_two_are_zero(run: Run, digits: str, folder: Path) -> None:
    manifest = run("sparsify", digits, {"pattern": [2, 4], "tuning": {**TUNING, "epochs": 4}}, "pattern")
    model = keras.saving.load_model(folder / "pattern/model.keras")
    rows = model.get_layer("conv1").get_weights()[0].transpose(3, 0, 1, 2).reshape(-1, 4)
    scores = model.get_layer("scores").get_weights()[0].T.reshape(-1, 4)
    assert ((rows == 0).sum(1) >= 2).all()
    assert ((scores == 0).sum(1) >= 2).all()
    assert manifest["layers"]["conv1"]["zeros"] == 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"begin": 1000, "end": 10000, "tuning": TUNING}, "training ends after 320 steps"),
        ({"pattern": [4, 4]}, "0 < n < m"),
        ({"initial": 0.8}, "upwards"),
        ({"tuning": {**TUNING, "mix": 0.3}}, "does not know mix"),
    ],
)
def test_schedules_that_do_nothing_are_refused(run: Run, digits: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(OptimizerError, match=message):
        run("sparsify", digits, settings, "refused")


def test_training_that_ends_before_pruning_does_is_warned_of(run: Run, digits: str) -> None:
    manifest = run("sparsify", digits, {"end": 1000, "tuning": {**TUNING, "epochs": 2}}, "early")
    assert "before pruning did at step" in manifest["warnings"][0]
    assert manifest["zeros_pruned"] < 0.5


@pytest.mark.parametrize("weights", ["per-channel", "per-tensor"])
def test_training_in_int8_recovers_what_quantization_loses(run: Run, digits: str, folder: Path, weights: str) -> None:
    make_brittle(folder / digits, folder / "brittle.keras")
    run("quantize", "brittle.keras", {**NUMBERS, "weights": weights}, f"ptq-{weights}")
    tuning = {**TUNING, "epochs": 12}
    manifest = run("qat", "brittle.keras", {"weights": weights, "tuning": tuning}, f"qat-{weights}")
    lost, got = (accuracy_of(folder, f"{way}-{weights}") for way in ("ptq", "qat"))
    print(f"{weights}: float {manifest['accuracy_float']:.3f} on validation; test: after {lost:.3f}, with {got:.3f}")
    assert got > lost + 0.2
    assert got > 0.93
    file = Flatfile((folder / f"qat-{weights}/model.tflite").read_bytes())
    scales = [len(file.scales(index)) for index in range(len(file.graph.tensors)) if file.constant(index) is not None]
    assert (max(scales) == 1) == (weights == "per-tensor")


def test_what_was_trained_per_tensor_takes_power_of_two_scales(run: Run, digits: str, folder: Path) -> None:
    tuning = {**TUNING, "epochs": 3}
    run("qat", digits, {"weights": "per-tensor", "output": "float32", "tuning": tuning}, "qat-float")
    run("qat", digits, {"weights": "per-tensor", "tuning": tuning}, "qat-fpga")
    run("power-of-two", "qat-fpga/model.tflite", {}, "fpga")
    assert accuracy_of(folder, "fpga") > 0.9
    assert load((folder / "qat-float/model.tflite").read_bytes(), runtimes=RUNTIMES).outputs[0].dtype == "float32"


def test_layers_that_cannot_be_trained_in_int8_are_named(run: Run, digits: str, folder: Path) -> None:
    image = keras.Input((8, 8, 1), name="image")
    flow = keras.layers.GRU(4, name="memory")(keras.layers.Reshape((8, 8))(image))
    keras.Model(image, keras.layers.Dense(10, "softmax")(flow)).save(folder / "gru.keras")
    with pytest.raises(OptimizerError, match=r"memory \(GRU\)"):
        run("qat", "gru.keras", {}, "refused")


NUMBERS = {"weights": "per-channel", "input": "int8", "output": "int8"}


def make_brittle(source: Path, target: Path) -> None:
    """The same function, with channels of ranges from 1 to 300 between two layers."""
    model = keras.saving.load_model(source)
    factors = np.geomspace(1, 300, 16).astype(np.float32)
    gamma, beta, mean, variance = model.get_layer("norm0").get_weights()
    model.get_layer("norm0").set_weights([gamma * factors, beta * factors, mean, variance])
    kernel = model.get_layer("conv1").get_weights()[0]
    model.get_layer("conv1").set_weights([kernel / factors[None, None, :, None]])
    model.save(target)


def accuracy_of(folder: Path, name: str) -> float:
    """Of the artifact in that folder, on test, its tensors called as in Keras."""
    data = np.load(folder / "digits/data.npz")
    model = load((folder / name / "model.tflite").read_bytes(), runtimes=RUNTIMES)
    return accuracy(data["test/labels"], predict(model, {"image": data["test/image"]})["scores"])


def int8_zeros(content: bytes) -> float:
    """Share of zeros in the int8 weights."""
    file = Flatfile(content)
    found = [
        values
        for index in range(len(file.graph.tensors))
        if is_int8(file.tensor(index)) and (values := file.constant(index)) is not None
    ]
    return float((np.concatenate([values.ravel() for values in found]) == 0).mean())
