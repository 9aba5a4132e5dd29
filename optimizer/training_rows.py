"""Rows of the user's data as training takes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from optimizer.data import Array, Splits
from optimizer.objective import Taught
from optimizer.settings import LIMITS
from optimizer.sources import InputSpec
from optimizer.tuning import Tuning


def rows_of(splits: Splits, specs: list[InputSpec], model: Any) -> tuple[Taught, Taught]:
    """Rows to learn from and rows to judge by: train and validation; calibration teaches where there is no train.

    Labels where the split has them and the model has one output of classes.
    """
    taught_by = "train" if splits.holds("train") else "calibration"
    classes = _classes(model)
    train = _split(splits, taught_by, specs, classes, LIMITS.train_rows)
    return train, _split(splits, "validation", specs, classes, LIMITS.score_rows)


def enough(rows: Taught, *courses: Tuning) -> Taught:
    """Some of the rows where training by these settings, one after the other, sees no more: none is taught in vain."""
    seen = sum(course.total_steps(rows.number) * course.batch for course in courses)
    if not 0 < seen < rows.number:
        return rows
    return rows.taken(np.sort(np.random.default_rng(courses[0].seed).permutation(rows.number)[:seen]))


def _classes(model: Any) -> int:
    shape = model.outputs[0].shape
    return max(2, int(shape[1])) if len(model.outputs) == 1 and len(shape) == 2 else 0


def _split(splits: Splits, split: str, specs: list[InputSpec], classes: int, most: int) -> Taught:
    arrays = splits.inputs(split, most)
    inputs: tuple[Array, ...] = tuple(arrays[spec.name] for spec in specs)
    return Taught(inputs, splits.labels(split, most, classes) if classes else None, None)
