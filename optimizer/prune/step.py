"""The step: a pruned `.keras` file and a manifest of what was done. Runs in a TensorFlow child."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from optimizer.data import Splits
from optimizer.distill import summary_of
from optimizer.errors import RefusedError
from optimizer.passes import Inputs, Progress
from optimizer.prune.run import Report, prune
from optimizer.prune.settings import Pruning
from optimizer.sources import input_specs, load_source
from optimizer.training_rows import rows_of
from optimizer.work_files import SOURCE


def prune_source(inputs: Inputs, given: dict[str, Any], out: Path, progress: Progress) -> dict[str, Any]:
    """The pass: prune `source`, taught on the train rows of `data`, to model.keras; settings are those of Pruning.

    Raises RefusedError for settings, data or a budget that cannot be used.
    """
    progress(0.0, "loading")
    settings = read_settings(given)
    model = load_source(inputs["source"])
    train, check = rows_of(Splits(inputs["data"], specs := input_specs(model)), specs, model)
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
    """Plain values: sizes before and after, groups, barriers with their reasons, what every round did.

    Over all rounds: `steps` and `wall_s` of fine-tuning, which `scratch` gets as well. `epoch_s`: of the last round.
    `accuracy`: on validation, of the source and of what it became; null without labels.
    """
    found: dict[str, Any] = {
        "settings": msgspec.json.decode(msgspec.json.encode(settings)),
        "before": report.before._asdict(),
        "after": report.after._asdict(),
        "groups": {
            name: {"channels": total, "free": free, "kept": kept} for name, (total, free, kept) in report.groups.items()
        },
        "barriers": [barrier._asdict() for barrier in report.barriers],
        "blocks": list(report.blocks),
        "rounds": [
            {"ratios": part.ratios, "size": part.size._asdict(), **summary_of(part.tuned)} for part in report.rounds
        ],
        "seed": settings.after.seed,
        "accuracy": {"before": report.accuracy, "after": report.accuracy},
        **_training(report),
    }
    return found


def _training(report: Report) -> dict[str, Any]:
    """Over all rounds."""
    tuned = [part.tuned for part in report.rounds]
    if not tuned:
        return {"steps": 0, "wall_s": 0.0, "epoch_s": 0.0}
    return {
        "steps": sum(part.steps for part in tuned),
        "wall_s": sum(part.wall_s for part in tuned),
        "epoch_s": tuned[-1].epoch_s,
        "accuracy": {"before": report.accuracy, "after": tuned[-1].accuracy},
    }
