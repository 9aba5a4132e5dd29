"""`vote`: several devices compute each row; the majority answers, and who keeps disagreeing with it shows.

Weights by reliability: each voter is right with its own probability and otherwise names any other class alike, the
"one-coin" form of Dawid, Skene, "Maximum likelihood estimation of observer error-rates", 1979; weights as by Nitzan,
Paroush, "Optimal decision rules in uncertain dichotomous choice situations", 1982, for several classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec
import numpy as np

from controller.errors import UserError
from controller.reducers.calibration import held_out
from controller.reducers.classes import Meaning, log_probabilities, needed
from controller.reducers.counted import Counted
from controller.reducers.face import About, Rows
from controller.reducers.score import best_of
from controller.reducers.tally import Ballot, fingerprints

_MOST_HELD = 100_000
_UNIT = 2**40


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    replicas: Annotated[int, msgspec.Meta(ge=2, le=15)] = 3
    """Devices that compute each row."""
    output: str | None = None
    scores: Meaning = "auto"
    refine: Literal["reliability"] | None = None
    """Weigh votes by how often a device was right: on held-out labelled rows, without labels against the majority."""
    held_out: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.2


@dataclass
class State:
    ballots: dict[tuple[int, int], Ballot] = field(default_factory=dict)
    """By first row and replica."""


class Vote:
    def __init__(self, about: About, settings: Settings) -> None:
        self.about = about
        self.settings = settings
        self.replicas = settings.replicas
        self.spec = needed(about, settings.output, "vote")
        labels = about.labels
        if labels is not None and not (labels >= 0).any():
            raise UserError("the input has labels, and none of them is known", "leave the array `labels` out")
        share = settings.held_out if settings.refine else 0.0
        self.held = None if labels is None else held_out(labels, share, _MOST_HELD)

    def empty(self) -> State:
        return State()

    def add(self, state: State, rows: Rows) -> State:
        scores = rows.outputs[self.spec.name]
        sure = np.exp(log_probabilities(scores, self.spec, self.settings.scores).max(axis=1))
        state.ballots[rows.first, rows.replica] = Ballot(
            rows.device,
            rows.artifact,
            rows.last,
            best_of(scores).astype(np.int32),
            np.rint(sure * _UNIT).astype(np.int64),
            fingerprints(rows.outputs),
        )
        return state

    def merge(self, one: State, other: State) -> State:
        one.ballots |= other.ballots
        return one

    def finish(self, state: State) -> Counted:
        return Counted(
            self.about, self.spec.shape[0], state.ballots, self.held, weighted=self.settings.refine is not None
        )
