"""CSV: a header and numbers, read some thousand rows at a time. Errors name the line and the column."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from controller.errors import UserError
from controller.job_inputs.source import Array, Layout
from controller.job_inputs.spool import Spool
from controller.job_inputs.table import Piece
from controller.job_inputs.table import lay_out as lay_out_table
from controller.job_inputs.wanted import Wanted

_ROWS = 2000
_HINT = "a CSV file is UTF-8 text: a header with the columns' names, commas between cells, a number in each"


def lay_out(path: Path, wanted: Wanted, spool: Spool) -> Layout:
    """Without a header the columns are numbered, which is enough for a model with one input."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            first = next(reader, None)
            if not first:
                raise UserError("the input is empty", _HINT)
            names, rows = _header(first), _rows(reader, first)
            return lay_out_table(names, frozenset(), lambda _: _pieces(names, rows), wanted, spool)
    except UnicodeDecodeError as error:
        raise UserError(f"the input is of no known kind, and no text either: {error.reason}", _HINT) from error
    except csv.Error as error:
        raise UserError(f"the CSV cannot be read: {error}", _HINT) from error


def _header(first: Sequence[str]) -> list[str]:
    return [str(number) for number in range(len(first))] if _numbers(first) else [name.strip() for name in first]


def _rows(reader: Iterable[list[str]], first: list[str]) -> Iterator[list[str]]:
    return itertools.chain([first], reader) if _numbers(first) else iter(reader)


def _numbers(cells: Sequence[str]) -> bool:
    try:
        for cell in cells:
            float(cell)
    except ValueError:
        return False
    return True


def _pieces(names: Sequence[str], rows: Iterator[list[str]]) -> Iterator[Piece]:
    seen = 0
    while piece := list(itertools.islice(rows, _ROWS)):
        cells = [row for row in piece if row]
        ragged = next((number for number, row in enumerate(cells) if len(row) != len(names)), None)
        if ragged is not None:
            raise UserError(
                f"row {seen + ragged + 1} of the CSV has {len(cells[ragged])} cells, the header {len(names)}", _HINT
            )
        yield _piece(names, cells, seen)
        seen += len(cells)


def _piece(names: Sequence[str], cells: list[list[str]], seen: int) -> Piece:
    def values(columns: Sequence[int]) -> Array:
        if list(columns) == list(range(len(names))):
            return _as_numbers(cells, columns)
        return _as_numbers([[row[column] for column in columns] for row in cells], columns)

    def _as_numbers(picked: list[list[str]], columns: Sequence[int]) -> Array:
        try:
            flat = np.fromiter(map(float, itertools.chain.from_iterable(picked)), np.float64)
            return flat.astype(np.float32).reshape(len(picked), len(columns))
        except ValueError:
            row, column = _first_bad(picked)
            raise UserError(
                f"row {seen + row + 1}, column {names[columns[column]]!r}: {picked[row][column][:40]!r} is no number",
                _HINT,
            ) from None

    def column(number: int) -> Array:
        return np.array([row[number] for row in cells], dtype=np.str_)

    return Piece(len(cells), values, column)


def _first_bad(cells: list[list[str]]) -> tuple[int, int]:
    return next((r, c) for r, row in enumerate(cells) for c, cell in enumerate(row) if not _numbers([cell]))
