"""Parquet, piece by piece; needs the extra `parquet`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from controller.errors import UserError
from controller.job_inputs.columns import Chosen
from controller.job_inputs.source import Array, Layout
from controller.job_inputs.spool import Spool
from controller.job_inputs.table import Piece
from controller.job_inputs.table import lay_out as lay_out_table
from controller.job_inputs.wanted import Wanted

_ROWS = 8192
MISSING = "Parquet needs pyarrow, which is not installed beside the controller"
INSTALL = "pip install 'lepta[parquet]' there; or use .npz"


def lay_out(path: Path, wanted: Wanted, spool: Spool) -> Layout:
    """Columns of numbers, or of lists of them."""
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise UserError(MISSING, INSTALL) from None

    try:
        with path.open("rb") as opened, parquet.ParquetFile(opened) as file:
            schema = file.schema_arrow
            lists = frozenset(i for i, kind in enumerate(schema.types) if _is_list(arrow, kind))
            _check_types(arrow, schema, lists)
            pieces = _Pieces(file, list(schema.names))
            return lay_out_table(schema.names, lists, pieces, wanted, spool)
    except (arrow.ArrowException, OSError) as error:
        raise UserError(f"the Parquet file cannot be read: {error}", "write it again") from error


class _Pieces:
    def __init__(self, file: Any, names: list[str]) -> None:
        self._file = file
        self._names = names

    def __call__(self, chosen: Chosen) -> Iterator[Piece]:
        """Only what is needed is read from the disk."""
        used = {column for columns in chosen.inputs.values() for column in columns}
        used |= {number for number in (chosen.label, chosen.id) if number is not None}
        for batch in self._file.iter_batches(_ROWS, columns=[self._names[number] for number in sorted(used)]):
            yield self._piece(batch)

    def _piece(self, batch: Any) -> Piece:
        def values(columns: Sequence[int]) -> Array:
            return np.concatenate([self._values(batch, self._names[number]) for number in columns], axis=1)

        def column(number: int) -> Array:
            array: Array = np.asarray(self._whole(batch, self._names[number]).to_numpy(zero_copy_only=False))
            return array.astype(np.str_) if array.dtype.kind == "O" else array

        return Piece(batch.num_rows, values, column)

    def _values(self, batch: Any, name: str) -> Array:
        """(rows, n) float32."""
        column = self._whole(batch, name)
        while hasattr(column, "flatten") and hasattr(column.type, "value_type"):
            lengths = np.unique(np.asarray(column.value_lengths())) if hasattr(column, "value_lengths") else [0]
            if len(lengths) > 1:
                raise UserError(f"the lists in column {name!r} differ in length: {lengths[0]} to {lengths[-1]}")
            column = column.flatten()
        try:
            array = np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float32)
        except ValueError as error:
            raise UserError(f"column {name!r} holds text, an input needs numbers: {error}") from error
        if column.null_count:
            raise UserError(f"column {name!r} has lists with missing values", "fill them, or leave the rows out")
        return array.reshape(batch.num_rows, -1)

    def _whole(self, batch: Any, name: str) -> Any:
        column = batch.column(name)
        if column.null_count:
            raise UserError(
                f"column {name!r} has {column.null_count} missing values in one row group",
                "fill them, or leave the rows out",
            )
        return column


def _is_list(arrow: Any, kind: Any) -> bool:
    types = arrow.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _check_types(arrow: Any, schema: Any, lists: frozenset[int]) -> None:
    types = arrow.types
    for number, (name, kind) in enumerate(zip(schema.names, schema.types, strict=True)):
        inner = kind
        while _is_list(arrow, inner):
            inner = inner.value_type
        plain = types.is_integer(inner) or types.is_floating(inner) or types.is_boolean(inner)
        text = number not in lists and (types.is_string(inner) or types.is_large_string(inner))
        if not plain and not text:
            raise UserError(f"column {name!r} is of type {kind}", "columns are numbers, lists of numbers, or text")
