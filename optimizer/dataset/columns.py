"""Arrays that are read a few rows at a time, so that memory stays small however large the data."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from optimizer.data import DataError
from optimizer.dataset.tree import Entry
from optimizer.sources.specs import first_line

Array = npt.NDArray[Any]
_CHUNK_BYTES = 8 << 20


class Column(Protocol):
    """Rows of one array. Errors name `name`, as the user knows it."""

    name: str
    shape: tuple[int, ...]
    """With rows first."""
    dtype: np.dtype[Any]

    def chunks(self, wanted: npt.NDArray[np.bool_] | None = None) -> Iterator[Array]:
        """The rows in order, several at a time; with `wanted` only those. May be read several times."""


class Part(NamedTuple):
    """Rows that belong together: inputs by name, and labels if there are any."""

    inputs: dict[str, Column]
    labels: Column | None


class NpyColumn:
    """A .npy file. Raises DataError for one that cannot be read, or would run code."""

    def __init__(self, entry: Entry) -> None:
        self.name = entry.name.removesuffix(".npy")
        self._entry = entry
        with self._reading(), entry.open() as file:
            self.shape, self._fortran, self.dtype = _header(file)
        if self.dtype.hasobject:
            raise DataError(
                f"{self.name} holds pickled objects, which could run code and are never loaded; store plain numbers"
            )
        if not self.shape:
            raise DataError(f"{self.name} has shape []; the first axis is rows")
        if self.shape[0] * self._row_bytes > entry.size:
            raise DataError(f"{self.name} cannot be read: it is cut off, or its rows are empty")

    def chunks(self, wanted: npt.NDArray[np.bool_] | None = None) -> Iterator[Array]:
        with self._reading():
            yield from self._columnwise(wanted) if self._fortran else self._rowwise(wanted)

    def _rowwise(self, wanted: npt.NDArray[np.bool_] | None) -> Iterator[Array]:
        rows, row = self.shape[0], self.shape[1:]
        row_bytes = self._row_bytes
        step = max(1, _CHUNK_BYTES // row_bytes)
        with self._entry.open() as file:
            _header(file)
            for at in range(0, rows, step):
                count = min(step, rows - at)
                content = file.read(count * row_bytes)
                if len(content) != count * row_bytes:
                    raise EOFError("it is cut off")
                chunk = np.frombuffer(content, self.dtype).reshape(count, *row)
                yield chunk if wanted is None else chunk[wanted[at : at + count]]

    @property
    def _row_bytes(self) -> int:
        return max(1, math.prod(self.shape[1:]) * self.dtype.itemsize)

    def _columnwise(self, wanted: npt.NDArray[np.bool_] | None) -> Iterator[Array]:
        with self._entry.open() as file:
            whole = np.lib.format.read_array(file, allow_pickle=False)
        yield np.ascontiguousarray(whole if wanted is None else whole[wanted])

    def _reading(self) -> _Named:
        return _Named(self.name)


class _Named:
    """What reading may raise becomes a DataError that names the array."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, DataError) or not isinstance(error, UNREADABLE):
            return
        raise DataError(f"{self._name} cannot be read: {first_line(error)}") from error


UNREADABLE = (
    *(ValueError, OSError, EOFError, RuntimeError, NotImplementedError, zlib.error, zipfile.BadZipFile),
    # numpy parses a header as Python.
    *(SyntaxError, tokenize.TokenError),
)


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"version {version} of .npy is not known")
    shape, fortran, dtype = read(file)
    return shape, bool(fortran) and len(shape) > 1, dtype
