"""`score`: a row for each row of the input, and with labels what they say about the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec
import numpy as np

from controller.errors import UserError
from controller.reducers.calibration import Confidences, fit_temperature, held_out
from controller.reducers.classes import Meaning, log_probabilities, scores_output, sharpened
from controller.reducers.face import About, Array, Reduced, Rows, ids_of

_MOST_HELD = 20_000
WHO = ("device", "artifact", "runtime")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    top_k: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    """Classes a row, best first; more than one add the columns top_label and top_probability."""
    outputs: bool = True
    """Keep every output as it came, in columns output:NAME."""
    output: str | None = None
    """Which output has the classes' scores; default: the first that can."""
    scores: Meaning = "auto"
    refine: Literal["temperature"] | None = None
    """Calibrate the probabilities on held-out labelled rows; the figures before and after are of the other ones."""
    held_out: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.2


@dataclass
class State:
    confusion: Array
    """(classes, classes) counts: true class, then computed one."""
    confidences: Confidences = field(default_factory=Confidences)
    held: dict[int, tuple[Array, Array]] = field(default_factory=dict)
    """By first row: log-probabilities and labels of the held-out rows of a shard."""
    seen: dict[str, set[str]] = field(default_factory=lambda: {kind: set() for kind in WHO})
    computed: int = 0


class Score:
    replicas = 1

    def __init__(self, about: About, settings: Settings) -> None:
        self.about = about
        self.settings = settings
        self.scores = scores_output(about, settings.output)
        self.labels = about.labels if self.scores is not None else None
        if settings.refine and (self.labels is None or not (self.labels >= 0).any()):
            raise UserError(
                "a temperature is fitted to labels, and the input has none for this model's classes",
                "add an array `labels`, or leave refine out",
            )
        self.classes = self.scores.shape[0] if self.scores is not None else 0
        share = settings.held_out if settings.refine else 0.0
        self.held = None if self.labels is None else held_out(self.labels, share, _MOST_HELD)

    def empty(self) -> State:
        return State(np.zeros((self.classes, self.classes), np.int64))

    def add(self, state: State, rows: Rows) -> State:
        state.computed += len(rows)
        for kind, value in zip(WHO, (rows.device, rows.artifact, rows.runtime), strict=True):
            state.seen[kind].add(value)
        if self.scores is None or self.labels is None or self.held is None:
            return state
        labels, held = self.labels[rows.first : rows.last], self.held[rows.first : rows.last]
        known = labels >= 0
        logs = self.logs(rows)
        best = best_of(rows.outputs[self.scores.name])
        np.add.at(state.confusion, (labels[known], best[known]), 1)
        judged = known & ~held
        state.confidences.add(sharpened(logs[judged], 1.0).max(axis=1), (best == labels)[judged])
        if held.any():
            state.held[rows.first] = (logs[held], labels[held])
        return state

    def merge(self, one: State, other: State) -> State:
        one.confusion += other.confusion
        one.confidences.merge(other.confidences)
        one.held |= other.held
        one.computed += other.computed
        for kind in WHO:
            one.seen[kind] |= other.seen[kind]
        return one

    def finish(self, state: State) -> FinishedScore:
        return FinishedScore(self, state)

    def logs(self, rows: Rows) -> Array:
        assert self.scores is not None
        return log_probabilities(rows.outputs[self.scores.name], self.scores, self.settings.scores)


class FinishedScore:
    """The rows, with what a first look at the held-out ones has told."""

    per_row = True

    def __init__(self, reducer: Score, state: State) -> None:
        self._reducer = reducer
        self._state = state
        self.names = {kind: sorted(state.seen[kind]) for kind in WHO}
        self._numbers = {kind: {name: n for n, name in enumerate(names)} for kind, names in self.names.items()}
        # In the order of rows, whatever order they came in.
        held = [state.held[first] for first in sorted(state.held)]
        self._temperature = 1.0
        if held:
            self._temperature = fit_temperature(*(np.concatenate(each) for each in zip(*held, strict=True)))
        self._after = Confidences()

    def columns(self, first: int, last: int, results: Sequence[Rows]) -> dict[str, Array]:
        count, labels = last - first, self._reducer.labels
        columns: dict[str, Array] = {"id": ids_of(self._reducer.about, first, last)}
        columns |= self._classes(first, count, results[0] if results else None)
        if labels is not None:
            columns["truth"] = labels[first:last]
        for spec in self._reducer.about.outputs if self._reducer.settings.outputs else ():
            kept = results[0].outputs[spec.name] if results else np.full((count, *spec.shape), np.nan)
            columns[f"output:{spec.name}"] = kept.astype(np.float32, copy=False)
        for kind in WHO:
            number = self._numbers[kind][getattr(results[0], kind)] if results else -1
            columns[kind] = np.full(count, number, np.int32)
        columns["latency_ms"] = np.full(count, results[0].row_ms if results else np.nan, np.float32)
        return columns

    def result(self) -> Reduced:
        state, reducer = self._state, self._reducer
        metrics = {"rows": float(reducer.about.rows), "rows_computed": float(state.computed)}
        known = int(state.confusion.sum())
        if not known:
            return Reduced(metrics)
        metrics["accuracy"] = int(np.trace(state.confusion)) / known
        if state.confidences.rows:
            metrics["ece"] = state.confidences.ece
        if reducer.settings.refine and self._after.rows:
            metrics |= {
                "temperature": self._temperature,
                "held_out_rows": float(sum(len(labels) for _, labels in state.held.values())),
                "ece_before": state.confidences.ece,
                "ece_after": self._after.ece,
                "accuracy_before": state.confidences.accuracy,
                "accuracy_after": self._after.accuracy,
            }
            metrics["ece"] = metrics["ece_after"]
        return Reduced(metrics, {"confusion": state.confusion})

    def _classes(self, first: int, count: int, rows: Rows | None) -> dict[str, Array]:
        reducer, spec, most = self._reducer, self._reducer.scores, self._reducer.settings.top_k
        if spec is None:
            return {}
        most = min(most, spec.shape[0])
        if rows is None:
            labels, probabilities = np.full((count, most), -1), np.full((count, most), np.nan, np.float32)
            scores = np.full(count, np.nan, np.float32)
        else:
            chances = sharpened(reducer.logs(rows), self._temperature)
            labels = _best_first(rows.outputs[spec.name], most)
            probabilities = np.take_along_axis(chances, labels, axis=1).astype(np.float32)
            scores = rows.outputs[spec.name].max(axis=1).astype(np.float32)
            self._judge(first, chances, labels[:, 0])
        columns = {"label": labels[:, 0], "score": scores, "probability": probabilities[:, 0]}
        if most > 1:
            columns |= {"top_label": labels, "top_probability": probabilities}
        return columns

    def _judge(self, first: int, chances: Array, best: Array) -> None:
        labels, held = self._reducer.labels, self._reducer.held
        if labels is None or held is None:
            return
        true, kept = labels[first : first + len(best)], held[first : first + len(best)]
        judged = (true >= 0) & ~kept
        self._after.add(chances[judged].max(axis=1), (best == true)[judged])


def best_of(scores: Array) -> Array:
    """The best class of each row; NaN is worse than anything."""
    best: Array = np.nan_to_num(scores, nan=-np.inf).argmax(axis=1)
    return best


def _best_first(scores: Array, most: int) -> Array:
    """(rows, most) classes; of equal ones the first."""
    if most == 1:
        return best_of(scores)[:, np.newaxis]
    order: Array = np.argsort(-np.nan_to_num(scores, nan=-np.inf), axis=1, kind="stable")
    return order[:, :most]
