"""The pass: a model, or a student given by its file, is taught by the float model, or by labels alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import keras
import msgspec

from optimizer.data import Splits
from optimizer.distill import Tuned, summary_of, teach, tune
from optimizer.errors import RefusedError
from optimizer.macs import of_keras
from optimizer.objective import Goals, Taught, guess
from optimizer.passes import Inputs, Progress
from optimizer.prune.surgery import copy_of
from optimizer.sources import input_specs, load_source
from optimizer.training_rows import enough, rows_of
from optimizer.tuning import Tuning
from optimizer.work_files import SOURCE


class Distilling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to teach. `start`: the student's own weights, or new ones from `tuning.seed` in the same shapes."""

    tuning: Tuning = Tuning()
    start: Literal["student", "scratch"] = "student"
    teach: bool = True
    """False: by labels alone."""


def distill_source(inputs: Inputs, given: dict[str, Any], out: Path, progress: Progress) -> dict[str, Any]:
    """Teach `student`, else `source` itself, by what `source` answers on the train rows of `data`, to model.keras.

    Settings are those of Distilling. Raises RefusedError for settings, data or a student that cannot be used.
    """
    progress(0.0, "loading")
    settings = _settings(given)
    source = load_source(inputs["source"])
    student = _begun(load_source(inputs.get("student", inputs["source"])), settings)
    _check(source, student, settings)
    train, check = rows_of(Splits(inputs["data"], specs := input_specs(source)), specs, source)
    if not settings.teach and train.labels is None:
        raise RefusedError("without a teacher there must be labels: give train/labels, or set teach to true")
    if (train.labels is None) != (check.labels is None):
        missing = "train" if train.labels is None else "validation"
        raise RefusedError(f"{missing} has no labels, the other split has; give both or none")
    tuned = _taught(source, student, train, check, settings, progress)
    student.save(out / SOURCE)
    progress(1.0, f"{tuned.steps:,} steps")
    return _manifest(settings, student, tuned)


def _settings(given: dict[str, Any]) -> Distilling:
    try:
        return msgspec.convert(given, Distilling)
    except msgspec.ValidationError as error:
        raise RefusedError(f"settings of distillation: {error}") from error


def _begun(student: Any, settings: Distilling) -> Any:
    if settings.start == "student":
        return student
    keras.utils.set_random_seed(settings.tuning.seed % 2**32)
    return copy_of(student)


def _check(source: Any, student: Any, settings: Distilling) -> None:
    """Raises RefusedError where the student does not take what the source takes, or gives something else."""
    takes = [[(one.dtype, one.shape) for one in input_specs(model)] for model in (source, student)]
    gives = [[tuple(tensor.shape[1:]) for tensor in model.outputs] for model in (source, student)]
    for what, (theirs, own) in (("inputs", takes), ("outputs", gives)):
        if theirs != own:
            raise RefusedError(f"the student has {what} {own}, the model {theirs}; they must be the same, in one order")
    if not settings.teach and (settings.tuning.mix > 0 or settings.tuning.features > 0):
        raise RefusedError("mix and features need a teacher: set both to 0, or teach to true")


def _taught(source: Any, student: Any, train: Taught, check: Taught, settings: Distilling, progress: Progress) -> Tuned:
    goal: Goals = guess(source, check.inputs, check.labels, settings.tuning)
    train = enough(train, settings.tuning)
    if settings.teach:
        train, check = (part._replace(teacher=teach(source, part.inputs, goal)) for part in (train, check))
    return tune(student, train, check, goal, settings.tuning, progress, source if settings.teach else None)


def _manifest(settings: Distilling, student: Any, tuned: Tuned) -> dict[str, Any]:
    """Plain values; `accuracy` on validation, before and after, null without labels."""
    found: dict[str, Any] = {
        "settings": msgspec.json.decode(msgspec.json.encode(settings)),
        "after": {"parameters": student.count_params(), "macs": of_keras(student.layers)},
        "seed": settings.tuning.seed,
        **summary_of(tuned),
        "accuracy": {"before": tuned.before, "after": tuned.accuracy},
    }
    return found
