"""The step: a pruned `.keras` file and a manifest of what was done. Runs in a TensorFlow child."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from optimizer.data import Array, Splits
from optimizer.errors import RefusedError
from optimizer.passes import Inputs, Progress
from optimizer.prune.run import Report, Rows, prune
from optimizer.prune.settings import Pruning
from optimizer.settings import LIMITS
from optimizer.sources import InputSpec, input_specs, load_source
from optimizer.work_files import SOURCE


def prune_source(inputs: Inputs, given: dict[str, Any], out: Path, progress: Progress) -> dict[str, Any]:
    """The pass: prune `source`, taught on the train rows of `data`, to model.keras; settings are those of Pruning.

    Raises RefusedError for settings, data or a budget that cannot be used.
    """
    progress(0.0, "loading")
    settings = read_settings(given)
    model = load_source(inputs["source"])
    train, check = _rows(Splits(inputs["data"], specs := input_specs(model)), specs, _classes(model))
    student, report = prune(model, train, check, settings, progress)
    student.save(out / SOURCE)
    progress(1.0, f"{report.before.parameters:,} parameters became {report.after.parameters:,}")
    return manifest_of(settings, report)


def read_settings(given: dict[str, Any]) -> Pruning:
    """Settings as a recipe gives them, checked."""
    try:
        return msgspec.convert(given, Pruning)
    except msgspec.ValidationError as error:
        raise RefusedError(f"settings of pruning: {error}") from error


def manifest_of(settings: Pruning, report: Report) -> dict[str, Any]:
    """Plain values: sizes before and after, groups, barriers with their reasons, what every round did."""
    found: dict[str, Any] = {
        "settings": msgspec.json.decode(msgspec.json.encode(settings)),
        "before": report.before._asdict(),
        "after": report.after._asdict(),
        "groups": {name: {"channels": total, "free": free} for name, (total, free) in report.groups.items()},
        "barriers": [barrier._asdict() for barrier in report.barriers],
        "blocks": list(report.blocks),
        "rounds": [
            {"ratios": part.ratios, "size": part.size._asdict(), "epochs": part.tuned.epochs, "loss": part.tuned.loss}
            for part in report.rounds
        ],
    }
    return found


def _classes(model: Any) -> int:
    shape = model.outputs[0].shape
    return max(2, int(shape[1])) if len(model.outputs) == 1 and len(shape) == 2 else 0


def _rows(splits: Splits, specs: list[InputSpec], classes: int) -> tuple[Rows, Rows]:
    """Rows to learn from and rows to judge by: train and validation; calibration teaches where there is no train."""
    taught_by = "train" if splits.holds("train") else "calibration"
    train = _split(splits, taught_by, specs, classes, LIMITS.train_rows)
    return train, _split(splits, "validation", specs, classes, LIMITS.score_rows)


def _split(splits: Splits, split: str, specs: list[InputSpec], classes: int, most: int) -> Rows:
    arrays = splits.inputs(split, most)
    inputs: tuple[Array, ...] = tuple(arrays[spec.name] for spec in specs)
    return Rows(inputs, splits.labels(split, most, classes) if classes else None)
