"""Rows on their way into flat files: appended piece by piece, bounded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

from controller.errors import TooLarge
from controller.job_inputs.source import Array, Stored


class Spool:
    """Writes columns into files of `folder`, at most `limit` bytes of them all."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._left = limit
        self._limit = limit
        self._count = 0

    def column(self, dtype: str, shape: tuple[int, ...] = ()) -> Column:
        """A new column of rows of this shape; use it as a context manager, or `close` it."""
        self._count += 1
        return Column(self, self._folder / f"{self._count}.rows", np.dtype(dtype).str, shape)

    def whole(self, array: Array, sent_as: str = "") -> Stored:
        """A column that is in memory."""
        with self.column(array.dtype.str, array.shape[1:]) as column:
            column.append(array)
        return column.stored(sent_as or array.dtype.name)

    def take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise TooLarge(f"the rows take more than the allowed {self._limit:,} bytes", "split the input")


class Column:
    def __init__(self, spool: Spool, path: Path, dtype: str, shape: tuple[int, ...]) -> None:
        self._spool = spool
        self._path = path
        self._dtype = dtype
        self._shape = shape
        self._file: BinaryIO = path.open("wb")
        self.rows = 0

    def __enter__(self) -> Column:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, array: Array) -> None:
        """`array` is (n, ...)."""
        fitting = np.ascontiguousarray(array.reshape(len(array), *self._shape), self._dtype)
        self._spool.take(fitting.nbytes)
        self._file.write(fitting.reshape(-1).view(np.uint8).data)
        self.rows += len(fitting)

    def close(self) -> None:
        """On the disk: what was laid out is used again after a restart."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def stored(self, sent_as: str = "") -> Stored:
        return Stored(self._path.name, 0, self._dtype, self._shape, sent_as or np.dtype(self._dtype).name)
