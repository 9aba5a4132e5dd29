"""Fine-tunes a model by labels and by what its teacher answered, and keeps its best weights on check rows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from optimizer import losses
from optimizer.batches import chunks, in_one_call
from optimizer.calling import call, on_all, outputs_of
from optimizer.data import Array
from optimizer.descent import optimizer_of, penalty_of
from optimizer.errors import RefusedError
from optimizer.features import alike, with_features
from optimizer.objective import Goal, Goals, Score, Taught, by_outputs, goal_of, judge_of, objective_of, score_of
from optimizer.tuning import Tuning

__all__ = [
    "Goal",
    "Taught",
    "Tell",
    "Tuned",
    "call",
    "goal_of",
    "judge_of",
    "objective_of",
    "summary_of",
    "teach",
    "tune",
]

Tell = Callable[[float, str], None]
"""Fraction done, detail."""


class Tuned(NamedTuple):
    """How it went: epochs done, and the loss on the check rows, best and by epoch.

    `accuracy`: with the weights that were kept, and `before` any step, where the check rows have classes. `epoch_s`:
    median time of an epoch's steps.
    """

    epochs: int
    loss: float
    losses: tuple[float, ...]
    accuracy: float | None = None
    before: float | None = None
    wall_s: float = 0.0
    epoch_s: float = 0.0
    steps: int = 0


def summary_of(tuned: Tuned) -> dict[str, Any]:
    """Of a round, for a manifest: plain values."""
    found = tuned._asdict()
    del found["losses"], found["before"]
    return found


class _Course(NamedTuple):
    """How long it goes."""

    batch: int
    an_epoch: int
    """Steps."""
    steps: int
    patience: float

    @property
    def epochs(self) -> int:
        return -(-self.steps // self.an_epoch)

    def of_epoch(self, epoch: int) -> int:
        return min(self.an_epoch, self.steps - epoch * self.an_epoch)


def teach(teacher: Any, inputs: tuple[Array, ...], goal: Goals) -> Any:
    """The teacher's logits (or values) on all rows, float32: an array, or one for each of several goals."""
    found = on_all(lambda given: _logits(outputs_of(teacher, given, False), goal), inputs)
    return found[0] if isinstance(goal, Goal) else found


def tune(
    student: Any, rows: Taught, check: Taught, goal: Goals, settings: Tuning, tell: Tell, teacher: Any = None
) -> Tuned:
    """Train `student` in place and leave it with its best weights on `check`.

    `teacher` is the model itself; it is needed to mix rows and for features. Raises RefusedError where there is
    neither a label nor a teacher to learn from, or the loss is no number any more.
    """
    began, course = time.perf_counter(), _course(settings, rows.number)
    _seeded(student, settings.seed)
    rows = _prepared(rows, settings, teacher)
    judge = score_of(student, check, objective_of(check, goal, settings), goal)
    learn = _learner(student, rows, goal, settings, teacher if settings.mix > 0 else None, course.steps)
    random = np.random.default_rng(settings.seed)
    best = first = now = judge()
    kept, seen, seconds = student.get_weights(), list[float](), list[float]()
    with _dropout(student, settings.dropout):
        for epoch in range(course.epochs):
            order = random.permutation(rows.number)[: course.of_epoch(epoch) * course.batch]
            seconds.append(_epoch(learn, rows, order, course, epoch, now, tell))
            now = judge()
            seen.append(now.loss)
            if not np.isfinite(now.loss):
                raise RefusedError("training diverged: the loss is no number any more; give a smaller learning rate")
            if now.loss < best.loss:
                best, kept = now, student.get_weights()
            elif epoch - int(np.argmin(seen)) >= course.patience:
                break
    student.set_weights(kept)
    steps, typical = min(course.steps, len(seen) * course.an_epoch), float(np.median(seconds)) if seconds else 0.0
    wall_s = time.perf_counter() - began
    return Tuned(len(seen), best.loss, tuple(seen), best.accuracy, first.accuracy, wall_s, typical, steps)


def _epoch(
    learn: Callable[[Taught], Any], rows: Taught, order: Array, course: _Course, epoch: int, score: Score, tell: Tell
) -> float:
    """Its steps, and how long they took."""
    began = time.perf_counter()
    for chunk, done in chunks(rows, order, course.batch):
        learn(chunk)
        tell((epoch * course.an_epoch + done) / course.steps, f"epoch {epoch + 1} of {course.epochs}, {score.said}")
    return time.perf_counter() - began


def _course(settings: Tuning, number: int) -> _Course:
    patience = math.inf if settings.steps > 0 else settings.patience
    return _Course(settings.batch, -(-number // settings.batch), settings.total_steps(number), patience)


def _prepared(rows: Taught, settings: Tuning, teacher: Any) -> Taught:
    if settings.features > 0 and teacher is None:
        raise RefusedError("features are those of a teacher, and there is none; set features to 0")
    if settings.mix > 0 and any(part.dtype.kind != "f" for part in rows.inputs):
        raise RefusedError("rows of whole numbers, such as tokens, cannot be mixed; set mix to 0")
    if settings.features == 0 or settings.mix > 0:
        return rows
    seen, skip = with_features(teacher), len(teacher.outputs)
    return rows._replace(features=on_all(lambda given: outputs_of(seen, given, False)[skip:], rows.inputs))


def _learner(
    student: Any, rows: Taught, goal: Goals, settings: Tuning, mixed: Any, steps: int
) -> Callable[[Taught], Any]:
    """One step for every batch of the rows that it is given."""
    optimizer = optimizer_of(settings, student.trainable_variables, steps)
    loss_of = _loss_of(student, rows if mixed is None else rows._replace(labels=None), goal, settings)
    mixture = None if mixed is None else _mixture(mixed, goal, settings)

    def learn(batch: Taught) -> None:
        batch = batch if mixture is None else mixture(batch)
        with tf.GradientTape() as tape:
            loss = loss_of(batch)
        optimizer.apply(tape.gradient(loss, student.trainable_variables))

    return in_one_call(learn, settings.batch)


def _loss_of(student: Any, rows: Taught, goal: Goals, settings: Tuning) -> Callable[[Taught], Any]:
    """All that training makes small: the objective, features, penalties, and losses of the model's own."""
    objective, number = objective_of(rows, goal, settings), len(student.outputs)
    penalty = penalty_of(settings, student.trainable_variables)
    seen = with_features(student) if settings.features > 0 else student

    def loss_of(batch: Taught) -> Any:
        outputs = outputs_of(seen, batch.inputs, True)
        loss = objective(outputs[:number], batch) + penalty()
        for own, taught in zip(outputs[number:], batch.features or (), strict=True):
            loss += settings.features * alike(own, taught)
        return tf.add_n([loss, *seen.losses])

    return loss_of


def _mixture(teacher: Any, goal: Goals, settings: Tuning) -> Callable[[Taught], Taught]:
    """Every row with a share of another (Beyer et al., arXiv 2106.05237), and what the teacher says of that."""
    random, number = tf.random.Generator.from_seed(settings.seed), len(teacher.outputs)
    seen = with_features(teacher) if settings.features > 0 else teacher

    def mixture(batch: Taught) -> Taught:
        count = tf.shape(batch.inputs[0])[:1]
        order, share = tf.argsort(random.uniform(count)), random.uniform(count, 0.0, settings.mix)
        inputs = []
        for part in batch.inputs:
            weight = tf.reshape(share, (-1, *(1,) * (len(part.shape) - 1)))
            inputs.append(part * (1 - weight) + tf.gather(part, order) * weight)
        outputs = outputs_of(seen, tuple(inputs), False)
        answer = tuple(map(tf.stop_gradient, _logits(outputs[:number], goal)))
        return Taught(tuple(inputs), None, answer, tuple(map(tf.stop_gradient, outputs[number:])) or None)

    return mixture


def _logits(outputs: list[Any], goal: Goals) -> list[Any]:
    return [losses.logits(output, *aim) for output, aim in zip(outputs, by_outputs(goal), strict=True)]


def _seeded(model: Any, seed: int) -> None:
    """Dropout and noise begin at `seed`, whatever was drawn before."""
    for at, layer in enumerate(model._flatten_layers()):
        for generator in layer._seed_generators:
            generator.state.assign([seed % 2**32, at])


@contextmanager
def _dropout(model: Any, share: float) -> Iterator[None]:
    """Within it, every dropout layer drops only a share of its rate."""
    dropping = [layer for layer in model._flatten_layers() if isinstance(getattr(layer, "rate", None), float)]
    rates = [layer.rate for layer in dropping]
    try:
        for layer, rate in zip(dropping, rates, strict=True):
            layer.rate = rate * share
        yield
    finally:
        for layer, rate in zip(dropping, rates, strict=True):
            layer.rate = rate
