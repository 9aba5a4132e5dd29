"""A result's columns on the disk, and the file that they become: never as a whole in memory."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from controller.errors import UserError
from controller.job_inputs.parquet_file import INSTALL, MISSING
from controller.job_inputs.source import Array, read_rows
from controller.job_inputs.spool import Column, Spool

_ROWS = 16_384
# What a zip says of a member's age: the same result has the same bytes.
_NO_TIME = (1980, 1, 1, 0, 0, 0)


class WrittenColumn:
    """A column of `rows` rows in a flat file."""

    def __init__(self, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], rows: int) -> None:
        self.dtype, self.shape, self.rows = dtype, shape, rows
        self._path = path

    def pieces(self) -> Iterator[Array]:
        with self._path.open("rb") as file:
            for first in range(0, self.rows, _ROWS):
                count = min(_ROWS, self.rows - first)
                yield read_rows(file.fileno(), 0, self.dtype, self.shape, first, first + count)


class Table:
    """Takes columns range by range."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._spool = Spool(folder, limit)
        self._folder = folder
        self._columns: dict[str, Column] = {}

    def add(self, columns: Mapping[str, Array]) -> None:
        if not self._columns:
            self._columns = {name: self._spool.column(a.dtype.str, a.shape[1:]) for name, a in columns.items()}
        for name, column in self._columns.items():
            column.append(columns[name])

    def columns(self) -> dict[str, WrittenColumn]:
        """Close the table; its columns."""
        written = {}
        for name, column in self._columns.items():
            column.close()
            stored = column.stored()
            dtype = np.dtype(stored.dtype)
            written[name] = WrittenColumn(self._folder / stored.file, dtype, stored.shape, column.rows)
        return written


def write_npz(
    path: Path, columns: Mapping[str, WrittenColumn], names: Mapping[str, Sequence[str]], arrays: Mapping[str, Array]
) -> None:
    """Each column as an array; the names that a column's numbers stand for as an array called like it with an s. As
    numpy's own `savez`, without compression: that would be most of the time from the last row to the result."""
    small = {**arrays, **{f"{column}s": np.array(each, np.str_) for column, each in names.items()}}
    with zipfile.ZipFile(path, "w") as archive:
        for name, column in columns.items():
            with archive.open(_member(name), "w", force_zip64=True) as member:
                described = {"descr": column.dtype.str, "fortran_order": False, "shape": (column.rows, *column.shape)}
                np.lib.format.write_array_header_1_0(member, described)
                for piece in column.pieces():
                    member.write(piece.tobytes())
        for name, array in small.items():
            with archive.open(_member(name), "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def write_parquet(
    path: Path, columns: Mapping[str, WrittenColumn], names: Mapping[str, Sequence[str]], arrays: Mapping[str, Array]
) -> None:
    """A column each; those that hold numbers of names hold the names. Small arrays are JSON in the file's metadata,
    under `lepta.NAME`."""
    arrow, parquet = parquet_library()
    kinds = [arrow.field(name, _kind(arrow, column, name in names)) for name, column in columns.items()]
    told = {f"lepta.{name}": json.dumps(array.tolist()) for name, array in arrays.items()}
    schema = arrow.schema(kinds, metadata=told)
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for pieces in zip(*(column.pieces() for column in columns.values()), strict=True):
            filled = [
                _filled(arrow, piece, field.type, names.get(field.name))
                for piece, field in zip(pieces, schema, strict=True)
            ]
            writer.write_batch(arrow.record_batch(filled, schema=schema))


def parquet_library() -> tuple[Any, Any]:
    """pyarrow and its Parquet part; raises UserError where they are not installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError(MISSING, INSTALL) from None
    return pyarrow, parquet


def _kind(arrow: Any, column: WrittenColumn, named: bool) -> Any:
    if named or column.dtype.kind == "U":
        return arrow.string()
    kind = arrow.from_numpy_dtype(column.dtype)
    for size in reversed(column.shape):
        kind = arrow.list_(kind, size)
    return kind


def _filled(arrow: Any, piece: Array, kind: Any, names: Sequence[str] | None) -> Any:
    if names is not None:
        return arrow.array([names[number] if number >= 0 else None for number in piece], kind)
    if piece.dtype.kind == "U":
        return arrow.array(piece.tolist(), kind)
    flat = arrow.array(piece.reshape(-1))
    for size in reversed(piece.shape[1:]):
        flat = arrow.FixedSizeListArray.from_arrays(flat, size)
    return flat


def _member(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(f"{name}.npy", _NO_TIME)
