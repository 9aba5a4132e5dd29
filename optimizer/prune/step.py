"""The step: a pruned `.keras` file and a manifest of what was done. Runs in a TensorFlow child."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from optimizer.data import Array, Splits
from optimizer.errors import RefusedError
from optimizer.prune.run import Pruning, Report, Rows, prune
from optimizer.settings import LIMITS
from optimizer.sources import InputSpec, input_specs, load_source
from optimizer.zygote import Progress


def prune_source(arguments: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Prune `source`, taught on the train rows of `data`, to `target`; `manifest` (JSON) says what was done.

    `settings` are those of Pruning. Returns the manifest. Raises RefusedError for settings, data or a budget that
    cannot be used.
    """
    progress(0.0, "loading")
    settings = read_settings(arguments["settings"])
    model = load_source(Path(arguments["source"]))
    train, check = _rows(Splits(Path(arguments["data"]), specs := input_specs(model)), specs, _classes(model))
    student, report = prune(model, train, check, settings, progress)
    student.save(arguments["target"])
    manifest = manifest_of(settings, report)
    Path(arguments["manifest"]).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2))
    progress(1.0, f"{report.before.parameters:,} parameters became {report.after.parameters:,}")
    return manifest


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
