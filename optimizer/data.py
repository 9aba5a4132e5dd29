"""The canonical data file, which every pass reads: an `.npz` with splits. optimizer/dataset makes it of other forms.

Arrays are called `SPLIT/INPUT` and `SPLIT/labels` (or `SPLIT/y`), SPLIT one of train, calibration, validation, test. A
model with one input may call it anything, such as `SPLIT/x`. Only `validation` is needed. Axis 0 is rows.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from optimizer.errors import RefusedError
from optimizer.settings import LIMITS
from optimizer.sources import InputSpec

Array = npt.NDArray[Any]

SPLITS = ("train", "calibration", "validation", "test")
LABELS = ("labels", "y")


class DataError(RefusedError):
    """Data that cannot be used; the message names file and array."""


class Splits:
    """A data file, to be read by a model's inputs. Arrays are read, and checked, when asked for."""

    def __init__(self, path: Path, inputs: list[InputSpec]) -> None:
        self._path = path
        self._inputs = inputs
        self._names: dict[str, dict[str, str]] = {split: {} for split in SPLITS}
        for key in _keys(path):
            split, _, name = key.partition("/")
            if split not in SPLITS or not name:
                raise DataError(
                    f"{path.name}: array {key!r}: names are SPLIT/NAME with SPLIT one of {', '.join(SPLITS)}"
                )
            self._names[split][name] = key
        if not self._names["validation"]:
            raise DataError(f"{path.name} has no validation split; give arrays such as validation/x")

    def inputs(self, split: str, rows: int) -> dict[str, Array]:
        """The first `rows` rows of every input, in the model's dtype: arrays (rows, *shape) by the model's names."""
        arrays = {spec.name: self._input(split, spec)[:rows] for spec in self._inputs}
        counts = {len(array) for array in arrays.values()}
        if len(counts) != 1 or counts == {0}:
            raise DataError(
                f"{self._path.name}: inputs of {split} need equal numbers of rows, at least 1: {sorted(counts)}"
            )
        return arrays

    def labels(self, split: str, rows: int, classes: int) -> Array | None:
        """Class indices of the first `rows` rows, shape (rows,), int64, checked; None if the split has no labels."""
        name = next((name for name in LABELS if name in self._names[split]), None)
        if name is None:
            return None
        key = self._names[split][name]
        labels = self._read(key)
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise DataError(
                f"{key} has dtype {labels.dtype} and shape {list(labels.shape)}; class indices are integers, [rows]"
            )
        total = len(self._input(split, self._inputs[0]))
        if len(labels) != total:
            raise DataError(f"{key} has {len(labels)} rows, the inputs of {split} have {total}")
        if labels.min() < 0 or labels.max() >= classes:
            row = int(np.flatnonzero((labels < 0) | (labels >= classes))[0])
            raise DataError(
                f"{key} row {row} is {labels[row]}; this model has {classes} classes: labels go from 0 to {classes - 1}"
            )
        return labels[:rows].astype(np.int64)

    def holds(self, split: str) -> bool:
        """Whether the file has arrays of that split."""
        return bool(self._names[split])

    def calibration(self, rows: int) -> dict[str, Array]:
        """Inputs to calibrate by: the calibration split, and rows of validation where it has fewer than wanted."""
        if not self.holds("calibration"):
            return self.inputs("validation", rows)
        own = self.inputs("calibration", rows)
        missing = rows - len(next(iter(own.values())))
        if missing <= 0:
            return own
        more = self.inputs("validation", missing)
        return {name: np.concatenate([part, more[name]]) for name, part in own.items()}

    def _input(self, split: str, spec: InputSpec) -> Array:
        key = self._key(split, spec)
        array = self._read(key)
        if array.dtype.kind not in "fiub":
            raise DataError(f"{key} has dtype {array.dtype}; numbers are wanted, best float32")
        if array.shape[1:] != spec.shape or array.ndim == 0:
            wanted = ", ".join(map(str, ("rows", *spec.shape)))
            raise DataError(f"{key} has shape {list(array.shape)}; the model's input {spec.name!r} wants [{wanted}]")
        converted = array.astype(spec.dtype, copy=False)
        if converted.dtype.kind == "f" and not np.isfinite(converted).all():
            raise DataError(f"{key} holds values that are not finite numbers; remove or replace those rows")
        return converted

    def _key(self, split: str, spec: InputSpec) -> str:
        found = {name: key for name, key in self._names[split].items() if name not in LABELS}
        if spec.name in found:
            return found[spec.name]
        if len(self._inputs) == 1 and len(found) == 1:
            return next(iter(found.values()))
        raise DataError(
            f"{self._path.name} has no array {split}/{spec.name}; {split} has {', '.join(sorted(found)) or 'none'}"
        )

    def _read(self, key: str) -> Array:
        try:
            with np.load(self._path, allow_pickle=False) as archive:
                return np.asarray(archive[key])
        except (ValueError, OSError, EOFError, KeyError, zlib.error, zipfile.BadZipFile) as error:
            raise DataError(f"{self._path.name}: array {key} cannot be read: {_sentence(error)}") from error


def _keys(path: Path) -> list[str]:
    """Names of the arrays, once the size unpacked is known to be within bounds."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except zipfile.BadZipFile as error:
        raise DataError(f"{path.name} is not a .npz file: {error}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > LIMITS.data_bytes or len(entries) > LIMITS.archive_files:
        raise DataError(
            f"{path.name} unpacks to {math.ceil(unpacked / 1e6)} MB in {len(entries)} arrays; "
            f"at most {LIMITS.data_bytes // 10**6} MB in {LIMITS.archive_files} are taken"
        )
    return [entry.filename.removesuffix(".npy") for entry in entries]


def _sentence(error: Exception) -> str:
    if "allow_pickle" in str(error):
        return "it holds pickled objects, which could run code and are never loaded; store plain numbers"
    return str(error)[:200]
