"""`stats`: additive statistics of an output: sums, spread, histogram, Gram matrix. Exact, so the same for any order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import msgspec
import numpy as np

from agent.contract.tensors import TensorSpec
from controller.errors import UserError
from controller.reducers.exact import SQUARE_UNIT, UNIT, as_floats, column_sums, gram, square_sums
from controller.reducers.face import About, Array, NoColumns, Reduced, Rows

_MOST_GRAM, _MOST_VALUES = 256, 65_536


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    output: str | None = None
    """Default: the first."""
    gram: bool = False
    """Also the sums of products of each two values, and with labels of each value and class: what a linear model on top
    needs (ridge regression)."""
    bins: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 32
    low: float = 0.0
    high: float = 1.0
    """Ends of the histogram; what lies outside is counted in the first and last column."""


@dataclass
class State:
    sums: Array
    squares: Array
    least: Array
    most: Array
    histogram: Array
    """(values, bins + 2)"""
    classes: Array
    """(values, classes): sums by label, (values, 0) without labels."""
    per_class: Array
    rows: int = 0
    not_finite: int = 0
    rows_by_device: dict[str, int] = field(default_factory=dict)


class Stats:
    replicas = 1

    def __init__(self, about: About, settings: Settings) -> None:
        self.about = about
        self.settings = settings
        self.spec = _output(about, settings.output)
        self.width = int(np.prod(self.spec.shape, dtype=np.int64))
        most = _MOST_GRAM if settings.gram else _MOST_VALUES
        if self.width > most:
            raise UserError(f"output {self.spec.name!r} has {self.width} values, at most {most} are taken")
        if not settings.low < settings.high:
            raise UserError(f"the histogram's low {settings.low:g} is not below its high {settings.high:g}")
        labels = about.labels
        self.classes = int(labels.max()) + 1 if settings.gram and labels is not None else 0
        if self.classes > _MOST_GRAM:
            raise UserError(f"the labels go up to {self.classes - 1}, at most {_MOST_GRAM} classes are taken")

    def empty(self) -> State:
        width = self.width
        squares = np.zeros((width, width) if self.settings.gram else width, object)
        return State(
            np.zeros(width, object),
            squares,
            np.full(width, np.inf),
            np.full(width, -np.inf),
            np.zeros((width, self.settings.bins + 2), np.int64),
            np.zeros((width, self.classes), object),
            np.zeros(self.classes, np.int64),
        )

    def add(self, state: State, rows: Rows) -> State:
        values = rows.outputs[self.spec.name].reshape(len(rows), -1).astype(np.float32)
        finite = np.isfinite(values).all(axis=1)
        state.not_finite += int((~finite).sum())
        state.rows_by_device[rows.device] = state.rows_by_device.get(rows.device, 0) + len(rows)
        values = values[finite]
        if not len(values):
            return state
        state.rows += len(values)
        state.sums += column_sums(values)
        state.squares += gram(values) if self.settings.gram else square_sums(values)
        state.least = np.minimum(state.least, values.min(axis=0))
        state.most = np.maximum(state.most, values.max(axis=0))
        self._count(state, values)
        if self.classes and self.about.labels is not None:
            labels = self.about.labels[rows.first : rows.last][finite]
            for label in np.unique(labels[labels >= 0]):
                state.classes[:, label] += column_sums(values[labels == label])
                state.per_class[label] += int((labels == label).sum())
        return state

    def merge(self, one: State, other: State) -> State:
        one.sums += other.sums
        one.squares += other.squares
        one.least = np.minimum(one.least, other.least)
        one.most = np.maximum(one.most, other.most)
        one.histogram += other.histogram
        one.classes += other.classes
        one.per_class += other.per_class
        one.rows += other.rows
        one.not_finite += other.not_finite
        for device, count in other.rows_by_device.items():
            one.rows_by_device[device] = one.rows_by_device.get(device, 0) + count
        return one

    def finish(self, state: State) -> NoColumns:
        computed = state.rows + state.not_finite
        metrics = {"rows": float(self.about.rows), "rows_computed": float(computed), "rows_finite": float(state.rows)}
        arrays: dict[str, Array] = {
            "count": np.array(state.rows),
            "sum": as_floats(state.sums, UNIT),
            "minimum": state.least,
            "maximum": state.most,
            "histogram": state.histogram,
            "edges": np.linspace(self.settings.low, self.settings.high, self.settings.bins + 1),
            "gram" if self.settings.gram else "sum_of_squares": as_floats(state.squares, SQUARE_UNIT),
        }
        if state.rows:
            arrays |= {"mean": _ratio(state.sums, state.rows, UNIT), "variance": self._variance(state)}
        if self.classes:
            arrays |= {"sum_by_class": as_floats(state.classes, UNIT), "count_by_class": state.per_class}
        devices = sorted(state.rows_by_device)
        arrays |= {"devices": np.array(devices, np.str_), "rows_by_device": _of(state.rows_by_device, devices)}
        return NoColumns(Reduced(metrics, arrays))

    def _count(self, state: State, values: Array) -> None:
        low, high, bins = self.settings.low, self.settings.high, self.settings.bins
        place = np.floor((values.astype(np.float64) - low) / (high - low) * bins)
        place = np.clip(place, -1, bins).astype(np.int64) + 1
        # The upper end belongs to the last bin, as in numpy's histograms.
        place[values == np.float32(high)] = bins
        columns = np.broadcast_to(np.arange(self.width), place.shape)
        np.add.at(state.histogram, (columns, place), 1)

    def _variance(self, state: State) -> Array:
        """Of the rows as a whole, exactly rounded: (n * sum of squares - sum^2) / n^2."""
        squares = np.diagonal(state.squares) if self.settings.gram else state.squares
        return _ratio(squares * state.rows - state.sums * state.sums, state.rows * state.rows, SQUARE_UNIT)


def _ratio(sums: Array, count: int, unit: int) -> Array:
    return np.array([value / (count << unit) for value in sums], np.float64)


def _of(counts: dict[str, int], names: list[str]) -> Array:
    return np.array([counts[name] for name in names], np.int64)


def _output(about: About, name: str | None) -> TensorSpec:
    found = next((spec for spec in about.outputs if name in (None, spec.name)), None)
    if found is None:
        raise UserError(f"no output is called {name!r}; there are {', '.join(spec.name for spec in about.outputs)}")
    return found
