"""What inspecting any kind of float model makes: its outputs on the splits, its accuracy, and the golden sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from agent.contract import golden
from optimizer.data import Array, DataError, Splits
from optimizer.errors import RefusedError
from optimizer.passes import Inputs, Progress
from optimizer.settings import LIMITS
from optimizer.sources import InputSpec
from optimizer.work_files import ACCEPTANCE, OUTPUTS, PARITY

SCORED = ("validation", "test")


class FloatModel(Protocol):
    """A source that can be asked. One thread at a time."""

    inputs: list[InputSpec]
    outputs: dict[str, tuple[int, ...]]
    """Shapes without rows, by name, in the model's order."""
    parameters: int
    macs: int

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Arrays (rows, ...) by the names of `inputs`; float32 arrays (rows, ...) by the names of `outputs`."""


class Scored(NamedTuple):
    """A split through the float model. `labels` are None where there are none, or no classes."""

    inputs: dict[str, Array]
    outputs: dict[str, Array]
    labels: Array | None

    @property
    def accuracy(self) -> float | None:
        return None if self.labels is None else golden.accuracy(self.labels, next(iter(self.outputs.values())))


def inspect_model(
    model: FloatModel, inputs: Inputs, settings: dict[str, Any], out: Path, progress: Progress
) -> dict[str, Any]:
    """Score `model` on the splits of `data` that `settings["splits"]` names; left out: validation, and test if any.

    Only those are read. Writes outputs.npz and, from validation, parity.npz and acceptance.npz (that of the model's
    first version where `acceptance` is given). Raises RefusedError for labels or data that do not fit the model.
    """
    classes = classes_of(model)
    _check_labels(settings.get("labels", ()), classes)
    splits = Splits(inputs["data"], model.inputs)
    splits.calibration(1)
    scored = {}
    for at, split in enumerate(_asked(splits, settings.get("splits"))):
        progress(0.2 + 0.3 * at, f"float model on {split}")
        scored[split] = _score(model, splits, split, classes)
    _save_outputs(out / OUTPUTS, scored)
    validation, seed = scored["validation"], settings["seed"]
    (out / PARITY).write_bytes(_parity_set(validation, seed))
    acceptance = _acceptance_set(model, validation, inputs.get("acceptance"), seed)
    (out / ACCEPTANCE).write_bytes(acceptance)
    progress(1.0, "float model scored")
    judged = validation.labels is not None
    accuracies = {split: part.accuracy for split, part in scored.items()}
    return {
        "parameters": model.parameters,
        "macs": model.macs,
        "judged": judged,
        "classes": classes,
        "inputs": [{**spec._asdict(), "shape": list(spec.shape)} for spec in model.inputs],
        "outputs": [{"name": name, "shape": list(shape)} for name, shape in model.outputs.items()],
        "splits": {split: _facts(part) for split, part in scored.items()},
        "accuracy_validation": accuracies["validation"],
        "accuracy_test": accuracies.get("test"),
        "accuracy_acceptance": _on_acceptance(model, acceptance) if judged else None,
    }


def classes_of(model: FloatModel) -> int:
    """How many classes a model tells apart (2 where it has one score); 0 where its output is not a score per class."""
    shapes = list(model.outputs.values())
    return max(2, shapes[0][0]) if len(shapes) == 1 and len(shapes[0]) == 1 else 0


def batches(rows: int, size: int) -> Iterator[slice]:
    for at in range(0, rows, size):
        yield slice(at, min(rows, at + size))


def _check_labels(labels: Sequence[str], classes: int) -> None:
    if labels and len(labels) != classes:
        raise RefusedError(f"{len(labels)} label names were given, the model has {classes} classes")


def _asked(splits: Splits, asked: Sequence[str] | None) -> list[str]:
    """Validation first, which the golden sets are made of; test only where it is asked for and there."""
    return [
        split for split in SCORED if (asked is None or split in asked or split == "validation") and splits.holds(split)
    ]


def _score(model: FloatModel, splits: Splits, split: str, classes: int) -> Scored:
    inputs = splits.inputs(split, LIMITS.score_rows)
    labels = splits.labels(split, LIMITS.score_rows, classes) if classes else None
    return Scored(inputs, model.predict(inputs), labels)


def _facts(scored: Scored) -> dict[str, Any]:
    rows = len(next(iter(scored.inputs.values())))
    return {"rows": rows, "labelled": scored.labels is not None, "accuracy": scored.accuracy}


def _parity_set(scored: Scored, seed: int) -> bytes:
    rows = _selected(scored.inputs, LIMITS.parity_rows, LIMITS.parity_bytes, seed)
    return golden.write_parity(golden.ParitySet(_taken(scored.inputs, rows), _taken(scored.outputs, rows)))


def _acceptance_set(model: FloatModel, scored: Scored, previous: Path | None, seed: int) -> bytes:
    """The model's set from its first version, byte for byte; for the first version rows of validation.

    Without labels nothing can be accepted by accuracy: the labels are zeros and the manifest asks for nothing.
    """
    if previous is not None:
        content = previous.read_bytes()
        _check_fits(model, golden.read_acceptance(content))
        return content
    rows = _selected(scored.inputs, LIMITS.acceptance_rows, LIMITS.acceptance_bytes, seed)
    labels = np.zeros(len(rows), np.int64) if scored.labels is None else scored.labels[rows]
    return golden.write_acceptance(golden.AcceptanceSet(_taken(scored.inputs, rows), labels))


def _check_fits(model: FloatModel, acceptance: golden.AcceptanceSet) -> None:
    fixed = {name: array.shape[1:] for name, array in acceptance.inputs.items()}
    wanted = {spec.name: spec.shape for spec in model.inputs}
    if fixed != wanted:
        raise DataError(
            f"the acceptance set of this model's first version has inputs {fixed}, this version takes {wanted}; "
            "name the inputs alike, or push it as a model of its own"
        )


def _on_acceptance(model: FloatModel, content: bytes) -> float:
    acceptance = golden.read_acceptance(content)
    return golden.accuracy(acceptance.labels, next(iter(model.predict(acceptance.inputs).values())))


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
