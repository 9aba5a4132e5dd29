"""What training is after: rows with what they teach, the kind of loss of every output, and how far a model is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from optimizer import losses
from optimizer.calling import ROWS, call, outputs_of
from optimizer.data import Array
from optimizer.errors import RefusedError
from optimizer.tuning import Loss, Tuning

Answers = Array | tuple[Array, ...]
"""(rows, ...) of a model's one output, or by its outputs."""


class Goal(NamedTuple):
    """The loss, and whether the model's outputs are probabilities (else logits or values)."""

    loss: Loss
    probabilities: bool


Goals = Goal | tuple[Goal, ...]
"""Of a model's one output, or by its outputs."""
Objective = Callable[[Any, "Taught"], Any]
"""The scalar loss of a model's outputs against a batch of rows."""


class Taught(NamedTuple):
    """Rows to learn from: inputs (rows, ...) by the model's inputs, labels or None, the teacher's logits or None.

    `features`: by outputs, what the teacher has before its last layer.
    """

    inputs: tuple[Array, ...]
    labels: Array | None
    teacher: Answers | None
    features: tuple[Array, ...] | None = None

    @property
    def number(self) -> int:
        return len(self.inputs[0])

    def taken(self, rows: Array) -> Taught:
        return self.map(lambda part: part[rows])

    def map(self, change: Callable[[Any], Any]) -> Taught:
        """With every array of rows changed."""
        return Taught(*(_changed(part, change) for part in self))


class Score(NamedTuple):
    """Of a model on check rows; the accuracy where their labels are classes."""

    loss: float
    accuracy: float | None

    @property
    def said(self) -> str:
        return f"loss {self.loss:.3f}" if self.accuracy is None else f"accuracy {self.accuracy:.3f}"


def goal_of(outputs: Answers, loss: Loss | None = None, labels: Array | None = None) -> Any:
    """From what the teacher gave: a Goal, or one for each of several outputs.

    `loss` overrides what is guessed from it; with labels that are classes, scores are taken for logits.
    """
    if isinstance(outputs, tuple):
        return tuple(goal_of(part, loss) for part in outputs)
    return Goal(loss or losses.loss_for(outputs, labels), losses.are_probabilities(outputs))


def guess(teacher: Any, inputs: tuple[Array, ...], labels: Array | None, settings: Tuning) -> Any:
    """The goal by what the teacher gives for some of the rows."""
    outputs = tuple(np.asarray(part) for part in outputs_of(teacher, tuple(part[:256] for part in inputs), False))
    return goal_of(outputs if len(outputs) > 1 else outputs[0], settings.loss, labels)


def by_outputs(value: Any) -> tuple[Any, ...]:
    """Goals or answers, one for each output."""
    return value if isinstance(value, tuple) and not isinstance(value, Goal) else (value,)


def objective_of(rows: Taught, goal: Goals, settings: Tuning) -> Objective:
    """Labels, teacher, or both by `alpha`; of several outputs the sum, which one array of labels says nothing about.

    Raises RefusedError where there is nothing to learn from.
    """
    aims = by_outputs(goal)
    labels = rows.labels if len(aims) == len(by_outputs(rows.labels)) else None
    if labels is None and rows.teacher is None:
        several = "; a model of several outputs learns from a teacher alone" if len(aims) > 1 else ""
        raise RefusedError(f"there is nothing to learn from: give labels or a teacher{several}")
    share = 0.0 if rows.teacher is None else 1.0 if labels is None else settings.alpha
    terms = [(aim, losses.hard(aim.loss), losses.soft(aim.loss, settings.temperature)) for aim in aims]

    def objective(outputs: Any, batch: Taught) -> Any:
        total: Any = 0.0
        for at, (output, (aim, hard, soft)) in enumerate(zip(keras.tree.flatten(outputs), terms, strict=True)):
            given = losses.logits(output, *aim)
            total += share * soft(given, by_outputs(batch.teacher)[at]) if share > 0 else 0.0
            total += (1 - share) * hard(given, by_outputs(batch.labels)[at]) if share < 1 else 0.0
        return total

    return objective


def judge_of(model: Any, check: Taught, objective: Objective) -> Callable[[], float]:
    """The mean objective over the check rows, whatever the model's weights are when it is called."""
    score = score_of(model, check, objective, None)
    return lambda: score().loss


def score_of(model: Any, check: Taught, objective: Objective, goal: Goals | None) -> Callable[[], Score]:
    """The same, with the accuracy where `goal` is given and the labels are classes."""
    right = losses.accuracy(goal.loss, check.labels) if isinstance(goal, Goal) else None

    def both(part: Taught) -> tuple[Any, Any]:
        outputs = call(model, part.inputs, False)
        if right is None or goal is None:
            return objective(outputs, part), tf.constant(0.0)
        return objective(outputs, part), right(losses.logits(keras.tree.flatten(outputs)[0], *goal), part.labels)

    compiled = tf.function(both, autograph=False, reduce_retracing=True)

    def mean() -> Score:
        found = [(part.number, *map(float, compiled(part))) for part in _batches(check, ROWS)]
        counts, lost, hit = zip(*found, strict=True)
        accuracy = None if right is None else float(np.average(hit, weights=counts))
        return Score(float(np.average(lost, weights=counts)), accuracy)

    return mean


def accuracy_of(answers: Answers | None, labels: Array | None, goal: Goals) -> float | None:
    """Of logits that are there already; None where there are no labels or they are not classes."""
    right = losses.accuracy(goal.loss, labels) if isinstance(goal, Goal) else None
    return None if right is None or answers is None else float(right(answers, labels))


def _changed(value: Any, change: Callable[[Any], Any]) -> Any:
    if value is None:
        return None
    return tuple(map(change, value)) if isinstance(value, tuple) else change(value)


def _batches(rows: Taught, size: int) -> Iterator[Taught]:
    for at in range(0, rows.number, size):
        yield rows.taken(np.arange(at, min(at + size, rows.number)))
