"""From plain rows to figures, pass by pass: what one leaves is what the next one takes, in every kind of numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from firmware_profiles.profile import Gate
from optimizer.dataset.step import prepare_data
from optimizer.evaluate import evaluate_artifact
from optimizer.inspect import inspect_source
from optimizer.judges import Measured, Paired, judge
from optimizer.passes import Work
from optimizer.quantize import quantize_source

# TensorFlow's converter speaks of its own parts.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")]
INPUTS = [{"name": "x", "dtype": "float32", "shape": [6]}]
SCHEMES = [("int8", "int8"), ("int8", "float32"), ("int16x8", "int16"), ("float16", "float32"), ("dynamic", "float32")]
# Of fewer, the share that calibrates sees too little of the range, and what lies beyond it is cut off.
ROWS = 6000
Chain = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("chained")
    keras.utils.set_random_seed(0)
    x = keras.Input((6,), name="x")
    hidden = keras.layers.Dense(256, activation="relu", name="hidden")(x)
    # Random weights leave scores nearly equal, and then roundings change the class.
    decided = keras.initializers.RandomNormal(stddev=3.0)
    last = keras.layers.Dense(3, activation="softmax", kernel_initializer=decided, name="scores")
    keras.Model(x, last(hidden)).save(made / "model.keras")
    return made / "model.keras"


@pytest.fixture(scope="module")
def chain(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """The passes on rows with or without labels, up to evaluate; manifests go through JSON as they do in a run."""

    def passed_on(work: Work, inputs: dict[str, Path], settings: dict[str, Any], out: Path) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(json.dumps(work(inputs, settings, out, lambda *_: None), allow_nan=False))
        return found

    def run(scheme: str, port: str, labelled: bool) -> dict[str, Any]:
        out = tmp_path_factory.mktemp("out")
        random = np.random.default_rng(0)
        arrays: dict[str, Any] = {"x": random.normal(size=(ROWS, 6)).astype(np.float32)}
        if labelled:
            arrays["y"] = random.integers(0, 3, ROWS)
        np.savez(out / "given.npz", allow_pickle=False, **arrays)
        prepare = {"inputs": INPUTS, "classes": 3, "preprocessing": None, "seed": 0}
        dataset = passed_on(prepare_data, {"data": out / "given.npz"}, prepare, out)
        inputs = {"source": source, "data": out / "data.npz"}
        splits = [split for split in ("validation", "test") if split in dataset["splits"]]
        facts = passed_on(inspect_source, inputs, {"labels": [], "seed": 0, "splits": splits}, out)
        passed_on(quantize_source, inputs, {"scheme": scheme, "input": port, "output": port}, out)
        files = {"artifact": "model.tflite", "data": "data.npz", "outputs": "outputs.npz", "own": "outputs.npz"}
        files |= {"parity": "parity.npz", "acceptance": "acceptance.npz"}
        settings = {"inputs": facts["inputs"], "runtimes": ["ai-edge-litert"], "threads": 1, "splits": splits[-1:]}
        return passed_on(evaluate_artifact, {role: out / name for role, name in files.items()}, settings, out)

    return run


@pytest.mark.parametrize(("scheme", "port"), SCHEMES)
def test_every_kind_of_numbers_is_judged_on_test_in_the_users_units(chain: Chain, scheme: str, port: str) -> None:
    measured = chain(scheme, port, labelled=True)
    assert [spec["dtype"] for spec in (*measured["inputs"], *measured["outputs"])] == [port, port]
    assert list(measured["splits"]) == ["test"]
    assert measured["paired"]["rows"] == 0.15 * ROWS
    parities = [Measured(**parity) for parity in measured["parities"]]
    assert [parity.where for parity in parities] == ["the parity set", "test"]
    assert all(parity.cosine > 0.999 and parity.max_error < 0.12 for parity in parities)
    assert judge(Gate(accuracy_loss=0.05), Paired(**measured["paired"]), parities).passed


def test_rows_without_labels_are_judged_by_parity_on_validation(chain: Chain) -> None:
    measured = chain("int8", "int8", labelled=False)
    assert list(measured["splits"]) == ["validation"]
    assert measured["splits"]["validation"]["rows"] == 0.5 * ROWS
    assert measured["paired"] is None
    assert measured["accuracy_int8"] is measured["accuracy_acceptance"] is None
    verdict = judge(Gate(), None, [Measured(**parity) for parity in measured["parities"]])
    assert verdict.passed
    assert "parity alone decides" in verdict.reasons[0]
