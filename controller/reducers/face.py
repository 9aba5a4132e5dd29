"""The face of a reducer: what it is told, what it keeps, what it gives.

The controller folds every accepted shard into a state (`empty`, `add`), on several threads or after a restart into
several states that are joined (`merge`), and asks at the end for the result (`finish`). Whatever the order, the result
must be the same, bit by bit: sums of floats are therefore kept as integers, see `exact`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from agent.contract.tensors import TensorSpec

Array = npt.NDArray[Any]
S = TypeVar("S")


@dataclass(frozen=True)
class About:
    """What is known of a job before the first answer. `labels` and `ids`: (rows,) or None; a label of -1 is not known.
    `outputs`: of the artifact that the job is pinned to; shapes have no rows axis."""

    rows: int
    outputs: tuple[TensorSpec, ...]
    labels: Array | None = None
    ids: Array | None = None


@dataclass(frozen=True)
class Rows:
    """A computed shard: rows `first` to `last` (exclusive), who computed it with what, and the outputs by name, each
    (last - first, ...). `row_ms`: time in the worker for one row. `replica`: which of several answers for these rows it
    is, from 0."""

    first: int
    last: int
    device: str
    artifact: str
    runtime: str
    outputs: Mapping[str, Array]
    row_ms: float = 0.0
    replica: int = 0
    hidden: Mapping[str, Array] = field(default_factory=dict)
    """Outputs of canary rows, which are nothing to a reducer."""

    def __len__(self) -> int:
        return self.last - self.first


@dataclass(frozen=True)
class Reduced:
    """`metrics` stand in the job's record; `arrays`, which are small, beside the rows in the result's file."""

    metrics: dict[str, float] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)


class Finished(Protocol):
    """A state that is complete."""

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        """Columns that hold numbers of these names, -1 for none."""

    @property
    def per_row(self) -> bool:
        """Are there columns? Then `columns` is called for ranges that follow one another and cover all rows."""

    def columns(self, first: int, last: int, results: Sequence[Rows]) -> dict[str, Array]:
        """Columns of the result for rows `first` to `last`, each (last - first, ...), of the same dtypes each time.
        `results`: the accepted answers for just these rows, in the order of replicas; none if they are quarantined."""

    def result(self) -> Reduced:
        """Called last."""


class Reducer(Protocol[S]):
    """Made by a factory `(about, settings) -> Reducer`, which raises ValueError (or UserError) for wrong settings.

    A distribution offers its own under the entry point group `lepta.reducers`.
    """

    @property
    def replicas(self) -> int:
        """How many devices compute each row."""

    def empty(self) -> S: ...

    def add(self, state: S, rows: Rows) -> S:
        """The state with these rows; `state` itself may be changed and is not used again."""

    def merge(self, one: S, other: S) -> S:
        """Associative and commutative; both states may be changed and are not used again."""

    def finish(self, state: S) -> Finished: ...


class NoColumns:
    """A finished state that gives no row of its own."""

    per_row = False

    def __init__(self, reduced: Reduced) -> None:
        self.names: dict[str, list[str]] = {}
        self._reduced = reduced

    def columns(self, first: int, last: int, results: Sequence[Rows]) -> dict[str, Array]:
        return {}

    def result(self) -> Reduced:
        return self._reduced


def ids_of(about: About, first: int, last: int) -> Array:
    """The rows' own ids, or their numbers."""
    return np.arange(first, last) if about.ids is None else about.ids[first:last]
