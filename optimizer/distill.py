"""Fine-tunes a small model by labels and by what its teacher answered; AdamW, a cosine schedule, early stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from optimizer import losses
from optimizer.data import Array
from optimizer.errors import RefusedError
from optimizer.tuning import Loss, Tuning

Tell = Callable[[float, str], None]
"""Fraction done, detail."""
_PREDICT = 512
_AT_ONCE = 16
"""Steps in one call into TensorFlow: what a call costs is a quarter of a small model's step."""


class Taught(NamedTuple):
    """Rows to learn from: inputs (rows, ...) by the model's inputs, labels or None, the teacher's logits or None."""

    inputs: tuple[Array, ...]
    labels: Array | None
    teacher: Array | None

    @property
    def number(self) -> int:
        return len(self.inputs[0])

    def taken(self, rows: Array) -> Taught:
        return self.map(lambda part: part[rows])

    def map(self, change: Callable[[Any], Any]) -> Taught:
        """With every array of rows changed."""
        labels, teacher = (None if part is None else change(part) for part in (self.labels, self.teacher))
        return Taught(tuple(map(change, self.inputs)), labels, teacher)


class Tuned(NamedTuple):
    """How it went: epochs done, and the loss on the check rows, best and by epoch."""

    epochs: int
    loss: float
    losses: tuple[float, ...]


class Goal(NamedTuple):
    """The loss, and whether the model's outputs are probabilities (else logits or values)."""

    loss: Loss
    probabilities: bool


def goal_of(outputs: Array, loss: Loss | None = None) -> Goal:
    """From what the teacher gave; `loss` overrides what is guessed from it."""
    return Goal(loss or losses.loss_for(outputs), losses.are_probabilities(outputs))


def teach(teacher: Any, inputs: tuple[Array, ...], goal: Goal) -> Array:
    """The teacher's logits (or values) on all rows, float32."""
    answer = tf.function(
        lambda given: losses.logits(call(teacher, given, False), *goal), autograph=False, reduce_retracing=True
    )
    found: Array = np.concatenate([np.asarray(answer(part), np.float32) for part in _parts(inputs, _PREDICT)])
    return found


def tune(
    student: Any, rows: Taught, check: Taught, goal: Goal, settings: Tuning, tell: Tell, teacher: Any = None
) -> Tuned:
    """Train `student` in place and leave it with its best weights on `check`.

    `teacher` is the model itself; it is needed to mix rows. Raises RefusedError where there is neither a label nor a
    teacher to learn from, or the loss is no number any more.
    """
    mixed = teacher if settings.mix > 0 else None
    if mixed is not None and any(part.dtype.kind != "f" for part in rows.inputs):
        raise RefusedError("rows of whole numbers, such as tokens, cannot be mixed; set mix to 0")
    learn = _learner(student, rows, goal, settings, mixed)
    judge = judge_of(student, check, objective_of(check, goal, settings))
    steps = _steps(rows, settings)
    random = np.random.default_rng(settings.seed)
    best, kept, seen = judge(), student.get_weights(), list[float]()
    with _dropout(student, settings.dropout):
        for epoch in range(settings.epochs):
            order = random.permutation(rows.number)
            for step in range(0, steps, _AT_ONCE):
                learn(rows.taken(order[step * settings.batch : (step + _AT_ONCE) * settings.batch]))
                done = epoch * steps + min(step + _AT_ONCE, steps)
                tell(done / (steps * settings.epochs), f"epoch {epoch + 1} of {settings.epochs}")
            seen.append(judge())
            if not np.isfinite(seen[-1]):
                raise RefusedError("training diverged: the loss is no number any more; give a smaller learning rate")
            if seen[-1] < best:
                best, kept = seen[-1], student.get_weights()
            elif epoch - int(np.argmin(seen)) >= settings.patience:
                break
    student.set_weights(kept)
    return Tuned(len(seen), best, tuple(seen))


def objective_of(rows: Taught, goal: Goal, settings: Tuning) -> Callable[[Any, Taught], Any]:
    """The scalar loss of a model's outputs against a batch of rows: labels, teacher, or both by `alpha`."""
    hard, soft = losses.hard(goal.loss), losses.soft(goal.loss, settings.temperature)
    if rows.labels is None and rows.teacher is None:
        raise RefusedError("there is nothing to learn from: give labels or a teacher")
    share = 0.0 if rows.teacher is None else 1.0 if rows.labels is None else settings.alpha

    def objective(outputs: Any, batch: Taught) -> Any:
        given = losses.logits(outputs, *goal)
        total = share * soft(given, batch.teacher) if share > 0 else 0.0
        return total + (1 - share) * hard(given, batch.labels) if share < 1 else total

    return objective


def judge_of(model: Any, check: Taught, objective: Callable[[Any, Taught], Any]) -> Callable[[], float]:
    """The mean objective over the check rows, whatever the model's weights are when it is called."""
    judge = tf.function(
        lambda part: objective(call(model, part.inputs, False), part), autograph=False, reduce_retracing=True
    )

    def mean() -> float:
        parts = [(part.inputs[0].shape[0], float(judge(part))) for part in _batches(check, _PREDICT)]
        return float(np.average([loss for _, loss in parts], weights=[count for count, _ in parts]))

    return mean


def _learner(student: Any, rows: Taught, goal: Goal, settings: Tuning, mixed: Any) -> Callable[[Taught], Any]:
    """A step per batch of the rows given: AdamW (Loshchilov and Hutter, arXiv 1711.05101), the rate falls by a cosine."""
    steps = _steps(rows, settings) * settings.epochs
    rate = keras.optimizers.schedules.CosineDecay(settings.rate, decay_steps=max(1, steps))
    optimizer = keras.optimizers.AdamW(rate, weight_decay=settings.decay, global_clipnorm=1.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    optimizer.build(student.trainable_variables)
    objective = objective_of(rows if mixed is None else rows._replace(labels=None), goal, settings)

    def learn(batch: Taught) -> None:
        if mixed is not None:
            batch = _mixture(batch, mixed, goal, settings.mix)
        with tf.GradientTape() as tape:
            loss = objective(call(student, batch.inputs, True), batch)
            if student.losses:
                loss += tf.add_n(student.losses)
        optimizer.apply(tape.gradient(loss, student.trainable_variables))

    def several(chunk: Taught) -> None:
        number = tf.shape(chunk.inputs[0])[0]

        def step(at: Any) -> Any:
            learn(chunk.map(lambda part: part[at : at + settings.batch]))
            return at + settings.batch

        tf.while_loop(lambda at: at < number, step, [0], parallel_iterations=1)

    found: Callable[[Taught], Any] = tf.function(several, autograph=False, reduce_retracing=True)
    return found


def _mixture(batch: Taught, teacher: Any, goal: Goal, most: float) -> Taught:
    """Every row with a share of another (Beyer et al., arXiv 2106.05237), and the teacher's logits on that."""
    count = tf.shape(batch.inputs[0])[0]
    order, share = tf.random.shuffle(tf.range(count)), tf.random.uniform((count,), 0.0, most)
    inputs = []
    for part in batch.inputs:
        weight = tf.reshape(share, (-1, *(1,) * (len(part.shape) - 1)))
        inputs.append(part * (1 - weight) + tf.gather(part, order) * weight)
    answer = losses.logits(call(teacher, tuple(inputs), False), *goal)
    return Taught(tuple(inputs), None, tf.stop_gradient(answer))


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


def _steps(rows: Taught, settings: Tuning) -> int:
    return -(-rows.number // settings.batch)


def call(model: Any, inputs: tuple[Any, ...], training: bool) -> Any:
    """The model on its inputs, in the structure (one, a list, a dict) that it was built with."""
    given: Any = list(inputs) if len(inputs) > 1 else inputs[0]
    if (structure := getattr(model, "_inputs_struct", None)) is not None:
        given = keras.tree.pack_sequence_as(structure, list(inputs))
    return model(given, training=training)


def _parts(inputs: tuple[Array, ...], size: int) -> Iterator[tuple[Array, ...]]:
    for at in range(0, len(inputs[0]), size):
        yield tuple(part[at : at + size] for part in inputs)


def _batches(rows: Taught, size: int) -> Iterator[Taught]:
    for at in range(0, rows.number, size):
        yield rows.taken(np.arange(at, min(at + size, rows.number)))
