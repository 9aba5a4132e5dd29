"""What a model asks of its rows, and how a file is told that it does not give it."""

from __future__ import annotations

import msgspec
import numpy as np

from agent.contract.manifest import Preprocessing
from agent.contract.tensors import TensorSpec
from controller.errors import UserError
from controller.job_inputs.source import Array

# Columns and arrays that are no inputs.
LABELS, IDS = "labels", "id"
LABEL_NAMES = (LABELS, "label")


class Wanted(msgspec.Struct, frozen=True):
    """`classes`: names of the model's classes, by which labels may be given. `preprocessing`: of pictures."""

    inputs: tuple[TensorSpec, ...]
    classes: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None


def sent_as(spec: TensorSpec, dtype: np.dtype[np.generic]) -> str:
    """The dtype on the wire; raises UserError unless the file has numbers.

    Numbers that are not of the model's own stored type are real numbers in the user's units.
    """
    if dtype.kind not in "fiub":
        raise UserError(f"input {spec.name!r} needs numbers, the file has {dtype}")
    return spec.dtype if dtype.name == spec.dtype else "float32"


def check_shape(spec: TensorSpec, shape: tuple[int, ...]) -> None:
    """`shape` has the rows first."""
    if shape[1:] != spec.shape or not shape:
        raise UserError(f"input {spec.name!r} needs shape {['rows', *spec.shape]}, the file has {list(shape)}")


def class_numbers(values: Array, classes: tuple[str, ...]) -> Array:
    """Labels as int64; -1 for those that are missing (NaN, empty, negative). Raises UserError for what is no class."""
    if values.ndim != 1:
        raise UserError(f"{LABELS} must have one value per row, its shape is {list(values.shape)}")
    if values.dtype.kind in "US":
        return _from_names(values.astype(np.str_), classes)
    if values.dtype.kind not in "fiub":
        raise UserError(f"{LABELS} must be class numbers or class names, the file has {values.dtype}")
    known = np.nan_to_num(values.astype(np.float64), nan=-1.0)
    numbers = known.astype(np.int64)
    if not np.array_equal(numbers, known):
        raise UserError(f"{LABELS} must be class numbers, the file has {known[numbers != known][0]:g}")
    return np.maximum(numbers, -1)


def _from_names(values: Array, classes: tuple[str, ...]) -> Array:
    numbers = {name: number for number, name in enumerate(classes)} | {"": -1}
    found, places = np.unique(values, return_inverse=True)
    return np.array([numbers[name] if name in numbers else _number(str(name), classes) for name in found])[places]


def _number(text: str, classes: tuple[str, ...]) -> int:
    try:
        return max(-1, int(float(text)))
    except ValueError:
        known = f"the version's classes are {', '.join(classes)}" if classes else "the version names no classes"
        raise UserError(f"the label {text[:40]!r} is no class number and no class; {known}") from None


def same_rows(counts: dict[str, int]) -> int:
    """How many rows there are; raises UserError where columns disagree, or there are none."""
    if len(set(counts.values())) != 1 or not next(iter(counts.values())):
        raise UserError(f"every array needs the same number of rows, at least one: {counts}")
    return next(iter(counts.values()))
