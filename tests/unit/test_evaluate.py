"""An artifact in the agent's runtime: which rows it sees, against which float model, in which interface."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.contract.golden import AcceptanceSet, ParitySet, write_acceptance, write_parity
from agent.runtime import load, predict
from firmware_profiles.profile import Gate
from optimizer.errors import StepError
from optimizer.evaluate import evaluate_artifact
from optimizer.judges import Measured, Paired, judge
from tests.builders import classifier

ROWS = {"calibration": 10, "validation": 60, "test": 40}
RUNTIMES = ["ai-edge-litert", "tflite-runtime"]
Evaluate = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact; data; and outputs of an original that the artifact agrees with on validation, less so on test."""
    made = tmp_path_factory.mktemp("evaluate")
    content = classifier()
    (made / "model.tflite").write_bytes(content)
    model = load(content, runtimes=RUNTIMES)
    random = np.random.default_rng(0)
    rows: dict[str, Any] = {}
    outputs: dict[str, Any] = {}
    for split, count in ROWS.items():
        for spec in model.inputs:
            rows[f"{split}/{spec.name}"] = random.uniform(-2, 2, (count, *spec.shape)).astype(np.float32)
        answers = predict(model, {spec.name: rows[f"{split}/{spec.name}"] for spec in model.inputs})
        scores = next(iter(answers.values())).copy()
        rows[f"{split}/labels"] = scores.argmax(axis=1)
        if split == "test":
            scores[:4] = np.roll(scores[:4], 1, axis=1)
        outputs |= {f"{split}/{name}": scores for name in answers}
    np.savez(made / "data.npz", allow_pickle=False, **rows)
    outputs = {name: array for name, array in outputs.items() if not name.startswith("calibration")}
    labels = {f"{split}/": rows[f"{split}/labels"] for split in ("validation", "test")}
    np.savez(made / "outputs.npz", allow_pickle=False, **outputs, **labels)
    np.savez(made / "unlabelled.npz", allow_pickle=False, **outputs)
    own = {name: 0.5 * array for name, array in outputs.items() if name.startswith("validation")}
    np.savez(made / "own.npz", allow_pickle=False, **own)
    inputs = {spec.name: rows[f"validation/{spec.name}"][:16] for spec in model.inputs}
    (made / "parity.npz").write_bytes(write_parity(ParitySet(inputs, predict(model, inputs))))
    (made / "acceptance.npz").write_bytes(write_acceptance(AcceptanceSet(inputs, rows["validation/labels"][:16])))
    return made


@pytest.fixture
def evaluate(folder: Path, tmp_path: Path) -> Evaluate:
    model = load((folder / "model.tflite").read_bytes(), runtimes=RUNTIMES)
    specs = [{"name": spec.name, "dtype": "float32", "shape": list(spec.shape)} for spec in model.inputs]

    def run(*splits: str, **changed: str) -> dict[str, Any]:
        files = {"artifact": "model.tflite", "data": "data.npz", "outputs": "outputs.npz", "parity": "parity.npz"}
        inputs = {role: folder / name for role, name in {**files, "acceptance": "acceptance.npz", **changed}.items()}
        settings = {"inputs": specs, "runtimes": RUNTIMES, "threads": 1, "splits": list(splits)}
        manifest = evaluate_artifact(inputs, settings, tmp_path, lambda *_: None)
        passed_on: dict[str, Any] = json.loads(json.dumps(manifest, allow_nan=False))
        return passed_on

    return run


def test_validation_chooses_without_a_look_at_test_and_test_judges_by_itself(evaluate: Evaluate) -> None:
    chosen = evaluate("validation")
    assert list(chosen["splits"]) == ["validation"]
    assert chosen["paired"] == {"rows": 60, "float_only": 0, "artifact_only": 0}
    assert chosen["accuracy_float"] == chosen["accuracy_int8"] == chosen["accuracy_acceptance"] == 1.0
    judged = evaluate("test")
    assert list(judged["splits"]) == ["test"]
    assert judged["paired"] == {"rows": 40, "float_only": 0, "artifact_only": 4}
    assert judged["accuracy_int8"] == 1.0
    assert judged["accuracy_float"] == 0.9
    assert [parity["where"] for parity in judged["parities"]] == ["the parity set", "test"]
    assert judged["parities"][1]["agreement"] == 0.9


def test_a_split_without_float_outputs_is_said_to_be_missing(evaluate: Evaluate) -> None:
    with pytest.raises(StepError, match="no float outputs of test"):
        evaluate("test", outputs="own.npz")


def test_equal_outputs_are_faithful_by_every_measure(evaluate: Evaluate) -> None:
    _, validation = evaluate("validation")["parities"]
    assert validation["agreement"] == 1.0
    assert validation["cosine"] == pytest.approx(1.0)
    assert validation["max_error"] == 0.0
    assert validation["sqnr_db"] > 200


def test_accuracy_is_against_the_original_and_parity_against_the_model_that_was_converted(evaluate: Evaluate) -> None:
    measured = evaluate("validation", own="own.npz")
    of_set, own, original = (Measured(**parity) for parity in measured["parities"])
    assert list(of_set.judged) == list(own.judged) == ["agreement", "sqnr_db"]
    assert own.sqnr_db == pytest.approx(0.0, abs=0.1)
    assert original.where == "validation against the original"
    assert not original.judged
    assert original.sqnr_db > 200
    verdict = judge(Gate(), Paired(**measured["paired"]), [of_set, own, original])
    assert [reason for reason in verdict.reasons if reason.startswith("no: ")] == [
        "no: SQNR on validation 0.0 dB, at least 15"
    ]


def test_without_labels_a_pruned_model_must_agree_with_the_original(evaluate: Evaluate) -> None:
    measured = evaluate("validation", own="own.npz", outputs="unlabelled.npz")
    assert measured["paired"] is None
    assert measured["accuracy_acceptance"] is None
    assert measured["parities"][-1]["judged"] == ["agreement"]
    on_test = evaluate("test", own="own.npz", outputs="unlabelled.npz")
    assert [parity["where"] for parity in on_test["parities"]] == ["the parity set", "test against the original"]
    verdict = judge(Gate(), None, [Measured(**parity) for parity in on_test["parities"]])
    assert not verdict.passed
    assert any("agreement on test against the original 0.9000" in reason for reason in verdict.reasons)


def test_the_source_itself_is_its_own_original(evaluate: Evaluate) -> None:
    measured = evaluate("validation", own="outputs.npz")
    assert [parity["where"] for parity in measured["parities"]] == ["the parity set", "validation"]


def test_answers_that_are_no_numbers_are_as_bad_as_json_can_say(evaluate: Evaluate, folder: Path) -> None:
    with np.load(folder / "outputs.npz") as found:
        outputs: dict[str, Any] = {name: found[name] for name in found.files}
    name = next(key for key in outputs if key.startswith("validation/") and key != "validation/")
    np.savez(folder / "nan.npz", allow_pickle=False, **{**outputs, name: np.full_like(outputs[name], np.nan)})
    _, validation = evaluate("validation", outputs="nan.npz")["parities"]
    assert validation["sqnr_db"] == -999.0
    assert validation["cosine"] == 0.0
    assert validation["max_error"] == 1e38
