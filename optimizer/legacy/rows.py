"""What a legacy pass learns from: rows, labels, and what the float model says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from optimizer.data import Splits
from optimizer.distill import Goal, Taught, call, goal_of, teach
from optimizer.errors import RefusedError
from optimizer.settings import LIMITS
from optimizer.sources import input_specs
from optimizer.training_rows import enough
from optimizer.tuning import Tuning

_ENOUGH = 256


class Lesson(NamedTuple):
    """Rows to learn from, rows to judge by, and by what."""

    train: Taught
    check: Taught
    goal: Goal


def lesson(model: Any, teacher: Any, data: Path, settings: Tuning) -> Lesson:
    """Train rows of `data` (calibration where there is no train) and validation, with the teacher's logits if needed.

    Raises RefusedError for a model of several outputs.
    """
    if len(model.outputs) != 1:
        raise RefusedError(f"training takes models of one output, this one has {len(model.outputs)}; split it")
    splits, specs = Splits(data, input_specs(model)), input_specs(model)
    shape = model.outputs[0].shape
    classes = max(2, int(shape[1])) if len(shape) == 2 else 0
    parts = []
    for split, most in (
        ("train" if splits.holds("train") else "calibration", LIMITS.train_rows),
        ("validation", LIMITS.score_rows),
    ):
        arrays = splits.inputs(split, most)
        labels = splits.labels(split, most, classes) if classes else None
        parts.append(Taught(tuple(arrays[spec.name] for spec in specs), labels, None))
    some = tuple(part[:_ENOUGH] for part in parts[1].inputs)
    goal = goal_of(np.asarray(call(teacher, some, False)), settings.loss)
    train, check = enough(parts[0], settings), parts[1]
    if settings.alpha > 0 or train.labels is None or check.labels is None:
        train, check = (part._replace(teacher=teach(teacher, part.inputs, goal)) for part in (train, check))
    return Lesson(train, check, goal)
