"""Fashion-MNIST (arXiv 1708.07747) as Debian packs it: 28 x 28 grey pictures of ten kinds of clothes."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

FOLDER = Path("/usr/share/datasets/fashion-mnist")
VALIDATION = 5000
"""Of the 60,000 pictures to learn from; the last ones."""
_IMAGES_AT, _LABELS_AT = 16, 8


class DataMissingError(RuntimeError):
    """The pictures are not on this machine; the message says how they come there."""


class Part(NamedTuple):
    """Pictures (rows, 28, 28, 1), or (rows, 784) if flat, float32 from 0 to 1; labels int64."""

    x: Array
    y: Array

    def first(self, rows: int) -> Part:
        return Part(self.x[:rows], self.y[:rows])


class Fashion(NamedTuple):
    """`train` teaches, `validation` chooses among epochs and measures groups, `test` is looked at once, at the end."""

    train: Part
    validation: Part
    test: Part


def load(*, flat: bool, quick: bool) -> Fashion:
    """All rows, or a few of each part for a quick run. Raises DataMissingError."""
    learn, test = _part("train", flat), _part("t10k", flat)
    train, validation = (
        Part(learn.x[:-VALIDATION], learn.y[:-VALIDATION]),
        Part(learn.x[-VALIDATION:], learn.y[-VALIDATION:]),
    )
    if quick:
        return Fashion(train.first(3000), validation.first(500), test.first(1000))
    return Fashion(train, validation, test)


def write(path: Path, parts: Mapping[str, Part]) -> None:
    """As a data file for the optimizer, by the names of its splits."""
    arrays = {f"{name}/{key}": array for name, part in parts.items() for key, array in part._asdict().items()}
    np.savez(path, allow_pickle=False, **arrays)


def _part(name: str, flat: bool) -> Part:
    pixels = _read(f"{name}-images-idx3-ubyte.gz", _IMAGES_AT).reshape(-1, *((784,) if flat else (28, 28, 1)))
    return Part(pixels.astype(np.float32) / 255, _read(f"{name}-labels-idx1-ubyte.gz", _LABELS_AT).astype(np.int64))


def _read(name: str, skipped: int) -> Array:
    try:
        with gzip.open(FOLDER / name) as file:
            return np.frombuffer(file.read(), np.uint8, offset=skipped)
    except FileNotFoundError as error:
        raise DataMissingError(f"{FOLDER} is not here: apt install dataset-fashion-mnist") from error
