"""`topk`: the few rows of millions that are worth a look."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Annotated

import msgspec
import numpy as np

from controller.errors import UserError
from controller.reducers.classes import Meaning, log_probabilities, needed
from controller.reducers.face import About, Array, NoColumns, Reduced, Rows, ids_of
from controller.reducers.score import best_of


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    k: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 100
    by: str = "uncertain"
    """`uncertain` (least sure of the best class), `confident`, or the number of a class: its most probable rows."""
    output: str | None = None
    scores: Meaning = "auto"


Entry = tuple[float, int, int, str]
"""Probability that is ranked (higher first), minus the row, label, device."""


@dataclass
class State:
    best: list[Entry] = field(default_factory=list)
    """At most k, as a heap whose first is the worst."""
    computed: int = 0


class TopK:
    replicas = 1

    def __init__(self, about: About, settings: Settings) -> None:
        self.about = about
        self.settings = settings
        self.spec = needed(about, settings.output, "topk")
        self.wanted = _class(settings.by, self.spec.shape[0])

    def empty(self) -> State:
        return State()

    def add(self, state: State, rows: Rows) -> State:
        state.computed += len(rows)
        scores = rows.outputs[self.spec.name]
        chances = np.exp(log_probabilities(scores, self.spec, self.settings.scores))
        labels = best_of(scores)
        ranked = chances.max(axis=1) if self.wanted is None else chances[:, self.wanted]
        if self.settings.by == "uncertain":
            ranked = -ranked
        keep = np.argsort(-ranked, kind="stable")[: self.settings.k]
        for number in map(int, keep):
            self._push(state, (float(ranked[number]), -(rows.first + number), int(labels[number]), rows.device))
        return state

    def merge(self, one: State, other: State) -> State:
        one.computed += other.computed
        for entry in other.best:
            self._push(one, entry)
        return one

    def finish(self, state: State) -> NoColumns:
        best = sorted(state.best, reverse=True)
        rows = [-row for _, row, _, _ in best]
        sign = -1.0 if self.settings.by == "uncertain" else 1.0
        ids: Array = np.array([ids_of(self.about, row, row + 1)[0] for row in rows])
        arrays = {
            "row": np.array(rows, np.int64),
            "id": ids,
            "probability": sign * np.array([value for value, *_ in best]),
            "label": np.array([label for _, _, label, _ in best], np.int64),
            "computed_by": np.array([device for *_, device in best], np.str_),
        }
        if self.about.labels is not None:
            arrays["truth"] = self.about.labels[rows]
        return NoColumns(Reduced({"rows": float(self.about.rows), "rows_computed": float(state.computed)}, arrays))

    def _push(self, state: State, entry: Entry) -> None:
        if len(state.best) < self.settings.k:
            heapq.heappush(state.best, entry)
        else:
            heapq.heappushpop(state.best, entry)


def _class(by: str, classes: int) -> int | None:
    if by in ("uncertain", "confident"):
        return None
    if by.isdecimal() and int(by) < classes:
        return int(by)
    raise UserError(f"by {by[:40]!r} is neither uncertain nor confident, nor a class from 0 to {classes - 1}")
