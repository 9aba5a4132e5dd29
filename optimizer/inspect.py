"""The float model: its size, its accuracy, and the golden sets that its outputs make. Runs in a TensorFlow child."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from agent.contract import golden
from optimizer.data import Array, DataError, Splits
from optimizer.errors import RefusedError
from optimizer.macs import of_keras
from optimizer.passes import Inputs, Progress
from optimizer.settings import LIMITS
from optimizer.sources import InputSpec, input_specs, load_source
from optimizer.work_files import ACCEPTANCE, OUTPUTS, PARITY

_BATCH = 128


class Scored(NamedTuple):
    """A split through the float model."""

    inputs: dict[str, Array]
    outputs: dict[str, Array]
    labels: Array | None


class _Source(NamedTuple):
    model: Any
    inputs: list[InputSpec]
    outputs: list[str]
    classes: int
    """0 where the output is not one score per class."""

    def predict(self, inputs: dict[str, Array]) -> dict[str, Array]:
        given = list(inputs.values()) if len(inputs) > 1 else next(iter(inputs.values()))
        found = keras.tree.flatten(self.model.predict(given, batch_size=_BATCH, verbose=0))
        return dict(zip(self.outputs, (np.asarray(array, np.float32) for array in found), strict=True))


def inspect_source(inputs: Inputs, settings: dict[str, Any], out: Path, progress: Progress) -> dict[str, Any]:
    """The pass. Inputs `source`, `data`, and `acceptance` from the model's first version, if any; `labels`, `seed`.

    Writes outputs.npz, parity.npz and acceptance.npz.
    """
    progress(0.0, "loading")
    source = _open(inputs["source"], settings["labels"])
    splits = Splits(inputs["data"], source.inputs)
    splits.calibration(LIMITS.calibration_rows)
    scored = {}
    for at, split in enumerate(("validation", "test")):
        progress(0.2 + 0.3 * at, f"float model on {split}")
        scored[split] = _score(source, splits, split)
    judged = all(part.labels is not None for part in scored.values())
    _save_outputs(out / OUTPUTS, scored)
    seed = settings["seed"]
    (out / PARITY).write_bytes(_parity_set(scored["validation"], seed))
    acceptance = _acceptance_set(source, scored["validation"], inputs.get("acceptance"), seed)
    (out / ACCEPTANCE).write_bytes(acceptance)
    progress(1.0, "float model scored")
    return {
        "parameters": int(source.model.count_params()),
        "macs": of_keras(source.model.layers),
        "judged": judged,
        "inputs": [spec._asdict() for spec in source.inputs],
        "accuracy_validation": _accuracy(scored["validation"]) if judged else None,
        "accuracy_test": _accuracy(scored["test"]) if judged else None,
        "accuracy_acceptance": _on_acceptance(source, acceptance) if judged else None,
    }


def _open(path: Path, labels: list[str]) -> _Source:
    model = load_source(path)
    shape = model.outputs[0].shape
    classes = max(2, int(shape[1])) if len(model.outputs) == 1 and len(shape) == 2 else 0
    if labels and len(labels) != classes:
        raise RefusedError(f"{len(labels)} label names were given, the model has {classes} classes")
    return _Source(model, input_specs(model), list(model.output_names), classes)


def _score(source: _Source, splits: Splits, split: str) -> Scored:
    inputs = splits.inputs(split, LIMITS.score_rows)
    labels = splits.labels(split, LIMITS.score_rows, source.classes) if source.classes else None
    return Scored(inputs, source.predict(inputs), labels)


def _accuracy(scored: Scored) -> float:
    if scored.labels is None:
        raise RefusedError("labels are missing")
    return golden.accuracy(scored.labels, next(iter(scored.outputs.values())))


def _parity_set(scored: Scored, seed: int) -> bytes:
    rows = _selected(scored.inputs, LIMITS.parity_rows, LIMITS.parity_bytes, seed)
    return golden.write_parity(golden.ParitySet(_taken(scored.inputs, rows), _taken(scored.outputs, rows)))


def _acceptance_set(source: _Source, scored: Scored, previous: Path | None, seed: int) -> bytes:
    """The model's set from its first version, byte for byte; for the first version rows of validation.

    Without labels nothing can be accepted by accuracy: the labels are zeros and the manifest asks for nothing.
    """
    if previous is not None:
        content = previous.read_bytes()
        _check_fits(source, golden.read_acceptance(content))
        return content
    rows = _selected(scored.inputs, LIMITS.acceptance_rows, LIMITS.acceptance_bytes, seed)
    labels = np.zeros(len(rows), np.int64) if scored.labels is None else scored.labels[rows]
    return golden.write_acceptance(golden.AcceptanceSet(_taken(scored.inputs, rows), labels))


def _check_fits(source: _Source, acceptance: golden.AcceptanceSet) -> None:
    fixed = {name: array.shape[1:] for name, array in acceptance.inputs.items()}
    wanted = {spec.name: spec.shape for spec in source.inputs}
    if fixed != wanted:
        raise DataError(
            f"the acceptance set of this model's first version has inputs {fixed}, this version takes {wanted}; "
            "name the inputs alike, or push it as a model of its own"
        )


def _on_acceptance(source: _Source, content: bytes) -> float:
    acceptance = golden.read_acceptance(content)
    return golden.accuracy(acceptance.labels, next(iter(source.predict(acceptance.inputs).values())))


def _selected(inputs: dict[str, Array], rows: int, size: int, seed: int) -> Array:
    """Row numbers, at most `rows` and at most `size` bytes of inputs, drawn at random, in their order."""
    total = len(next(iter(inputs.values())))
    row_bytes = sum(array[:1].nbytes for array in inputs.values())
    count = max(1, min(total, rows, size // max(1, row_bytes)))
    chosen: Array = np.sort(np.random.default_rng(seed).permutation(total)[:count])
    return chosen


def _taken(arrays: dict[str, Array], rows: Array) -> dict[str, Array]:
    return {name: array[rows] for name, array in arrays.items()}


def _save_outputs(path: Path, scored: dict[str, Scored]) -> None:
    """Arrays `SPLIT/NAME` of float outputs and `SPLIT/` for labels."""
    arrays: dict[str, Any] = {}
    for split, part in scored.items():
        arrays |= {f"{split}/{name}": array for name, array in part.outputs.items()}
        if part.labels is not None:
            arrays[f"{split}/"] = part.labels
    np.savez(path, **arrays)
