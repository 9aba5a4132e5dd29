"""A table's columns on their way into rows: what CSV and Parquet share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

import numpy as np

from controller.errors import UserError
from controller.job_inputs.columns import Chosen, choose
from controller.job_inputs.source import Array, Layout
from controller.job_inputs.spool import Spool
from controller.job_inputs.wanted import Wanted, class_numbers

# Takes numbers of columns of a piece: (rows, values) as float32.
Values = Callable[[Sequence[int]], Array]


class Piece:
    """Some rows of a table. `values` joins columns to (rows, n) float32; `column` gives one as it is."""

    def __init__(self, rows: int, values: Values, column: Callable[[int], Array]) -> None:
        self.rows = rows
        self.values = values
        self.column = column


def lay_out(
    names: Sequence[str],
    lists: frozenset[int],
    pieces: Callable[[Chosen], Iterable[Piece]],
    wanted: Wanted,
    spool: Spool,
) -> Layout:
    """Write every piece's inputs, labels and ids; raises UserError where a piece does not fit."""
    chosen = choose(names, lists, wanted.inputs)
    labels: list[Array] = []
    ids: list[Array] = []
    with ExitStack() as stack:
        columns = {spec.name: stack.enter_context(spool.column("float32", spec.shape)) for spec in wanted.inputs}
        for piece in pieces(chosen):
            for spec in wanted.inputs:
                values = piece.values(chosen.inputs[spec.name])
                if values.shape[1] != math.prod(spec.shape):
                    raise UserError(
                        f"column {names[chosen.inputs[spec.name][0]]!r} has lists of {values.shape[1]} numbers; "
                        f"input {spec.name!r} takes {math.prod(spec.shape)}"
                    )
                columns[spec.name].append(values)
            if chosen.label is not None:
                labels.append(class_numbers(piece.column(chosen.label), wanted.classes))
            if chosen.id is not None:
                ids.append(piece.column(chosen.id))
        rows = columns[wanted.inputs[0].name].rows
    if not rows:
        raise UserError("the table has no rows")
    return Layout(
        rows,
        {name: column.stored("float32") for name, column in columns.items()},
        spool.whole(np.concatenate(labels)) if labels else None,
        spool.whole(np.concatenate(ids)) if ids else None,
    )
