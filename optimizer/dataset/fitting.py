"""Columns in the model's shape and dtype, and labels as class indices. What does not fit is refused by its name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from optimizer.data import DataError
from optimizer.dataset.columns import Array, Column, Part
from optimizer.sources import InputSpec


class Fitted:
    """An input as the model takes it."""

    def __init__(self, column: Column, spec: InputSpec) -> None:
        if column.dtype.kind not in "fiub":
            raise DataError(f"{column.name} has dtype {column.dtype}; numbers are wanted, best float32")
        if _plain(column.shape[1:]) != _plain(spec.shape):
            wanted = ", ".join(map(str, ("rows", *spec.shape)))
            raise DataError(
                f"{column.name} has shape {list(column.shape)}; the model's input {spec.name!r} wants [{wanted}]"
            )
        self.name, self.dtype = column.name, np.dtype(spec.dtype)
        self.shape = (column.shape[0], *spec.shape)
        self._column = column

    def chunks(self, wanted: npt.NDArray[np.bool_] | None = None) -> Iterator[Array]:
        for chunk in self._column.chunks(wanted):
            with np.errstate(over="ignore", invalid="ignore"):
                found = np.ascontiguousarray(chunk.reshape(len(chunk), *self.shape[1:]), self.dtype)
            real = found if self.dtype.kind == "f" else chunk
            if real.dtype.kind == "f" and not np.isfinite(real).all():
                raise DataError(f"{self.name} holds values that are not finite numbers; remove or replace those rows")
            yield found

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def inputs_of(part: Part, specs: Sequence[InputSpec]) -> dict[str, Fitted]:
    """By the model's names, all with equally many rows. Without specs: as they are, 32-bit floats for 64."""
    known = {spec.name: spec for spec in specs}
    found = {name: Fitted(column, known.get(name) or _as_it_is(name, column)) for name, column in part.inputs.items()}
    rows = {column.shape[0] for column in found.values()}
    if len(rows) != 1 or rows == {0}:
        names = ", ".join(column.name for column in found.values()) or "the data"
        raise DataError(f"{names}: inputs need equal numbers of rows, at least 1: {sorted(rows)}")
    return found


def labels_of(part: Part, rows: int, classes: int | None) -> Array | None:
    """int64 [rows] where there are classes; targets of a model without (`classes` 0) as float32.

    One-hot rows and a last axis of 1 are taken too. Raises DataError.
    """
    if part.labels is None:
        return None
    column = part.labels
    if column.dtype.kind not in "fiub":
        raise DataError(f"{column.name} has dtype {column.dtype}; class indices are integers, [rows]")
    found = np.concatenate([np.asarray(chunk) for chunk in column.chunks()] or [np.zeros(0, column.dtype)])
    if len(found) != rows:
        raise DataError(f"{column.name} has {len(found)} rows, its inputs have {rows}")
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if classes and found.ndim == 2 and found.shape[1] == classes and _one_hot(found):
        found = found.argmax(axis=1)
    if classes == 0 and (found.ndim != 1 or found.dtype.kind == "f"):
        return found.astype(np.float32)
    if found.ndim != 1 or found.dtype.kind not in "iub":
        raise DataError(
            f"{column.name} has dtype {found.dtype} and shape {list(column.shape)}; class indices are integers, [rows]"
        )
    if classes and (found.min() < 0 or found.max() >= classes):
        row = int(np.flatnonzero((found < 0) | (found >= classes))[0])
        raise DataError(
            f"{column.name} row {row} is {found[row]}; this model has {classes} classes: "
            f"labels go from 0 to {classes - 1}"
        )
    return found.astype(np.int64)


def _one_hot(found: Array) -> bool:
    return bool(((found == 0) | (found == 1)).all() and (found.sum(axis=1) == 1).all())


def _as_it_is(name: str, column: Column) -> InputSpec:
    dtype = "float32" if column.dtype.kind == "f" else column.dtype.newbyteorder("=").name
    return InputSpec(name, dtype, tuple(column.shape[1:]))


def _plain(shape: Sequence[int]) -> tuple[int, ...]:
    """Without axes of 1: pictures of one channel come with and without it."""
    return tuple(size for size in shape if size != 1)


def signature(name: str, dtype: np.dtype[Any], shape: Sequence[int]) -> bytes:
    """What stands before an array in a digest, so that other names or shapes give another."""
    return f"{name}\0{dtype.str}\0{'x'.join(map(str, shape))}\0".encode()
