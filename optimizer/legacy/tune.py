"""Fine-tunes a Keras 2 model: AdamW, a cosine schedule, early stop, labels and a teacher as in optimizer/distill."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras

from agent.contract import golden
from optimizer.batches import chunks, in_one_call
from optimizer.distill import Taught, Tell, call, judge_of, objective_of
from optimizer.errors import RefusedError
from optimizer.legacy.rows import Lesson
from optimizer.tuning import Tuning

_BATCH = 512
_PLAIN = Tuning()
_UNKNOWN = ("mix", "l1", "l2", "optimizer", "momentum", "schedule", "warmup", "features")
"""Settings of Tuning that are not followed here: to ignore them would be a lie."""


class Tuned(NamedTuple):
    """How it went: epochs and steps done, median seconds of an epoch, best loss on the check rows, its accuracy."""

    epochs: int
    steps: int
    epoch_s: float
    loss: float
    accuracy: float | None


class Hooks(NamedTuple):
    """What stands between training and the model: `after_epoch` is called before it is judged.

    Weights of before step `counts_from` are not kept, however good they are.
    """

    after_epoch: Callable[[int], None] = lambda epoch: None
    counts_from: int = 0


def tune(model: Any, lesson: Lesson, settings: Tuning, tell: Tell, hooks: Hooks) -> Tuned:
    """Train `model` in place and leave it with its best weights. Raises RefusedError where training diverges."""
    odd = [name for name in _UNKNOWN if getattr(settings, name) != getattr(_PLAIN, name)]
    if odd:
        raise RefusedError(f"training by tensorflow-model-optimization does not know {', '.join(odd)}; leave that out")
    rows, total = lesson.train, settings.total_steps(lesson.train.number)
    an_epoch = -(-rows.number // settings.batch)
    epochs, patience = -(-total // an_epoch), math.inf if settings.steps > 0 else settings.patience
    learn, judge = _learner(model, lesson, settings), _judge(model, lesson, settings)
    score = scorer(model, lesson.check)
    random = np.random.default_rng(settings.seed)
    best, kept, since, done = np.inf, model.get_weights(), 0, 0
    said, seconds = "", list[float]()
    for epoch in range(epochs):
        order, started = random.permutation(rows.number), time.monotonic()
        steps = min(an_epoch, total - epoch * an_epoch)
        for chunk, taken in chunks(rows, order[: steps * settings.batch], settings.batch):
            learn(chunk)
            tell((epoch * an_epoch + taken) / total, f"epoch {epoch + 1} of {epochs}{said}")
        hooks.after_epoch(epoch)
        seconds.append(time.monotonic() - started)
        done = epoch + 1
        said = _said(score())
        loss = judge()
        if not np.isfinite(loss):
            raise RefusedError("training diverged: the loss is no number any more; give a smaller learning rate")
        if done * an_epoch < hooks.counts_from and done < epochs:
            continue
        since = 0 if loss < best else since + 1
        if loss < best:
            best, kept = loss, model.get_weights()
        if since >= patience:
            break
    model.set_weights(kept)
    return Tuned(done, min(done * an_epoch, total), median(seconds or [0.0]), float(best), score())


def scorer(model: Any, rows: Taught) -> Callable[[], float | None]:
    """Measures the share of rows whose top-1 class is the label, whenever it is called; None without labels."""
    answer = tf.function(lambda part: call(model, part, False), autograph=False, reduce_retracing=True)

    def score() -> float | None:
        if rows.labels is None:
            return None
        parts = (tuple(part[at : at + _BATCH] for part in rows.inputs) for at in range(0, rows.number, _BATCH))
        return golden.accuracy(rows.labels, np.concatenate([np.asarray(answer(part), np.float32) for part in parts]))

    return score


def thin_dropout(model: Any, share: float) -> None:
    """From now on every dropout layer drops only a share of its rate. For models that are not kept."""
    for layer in model.layers:
        if isinstance(getattr(layer, "rate", None), float):
            layer.rate *= share


def _judge(model: Any, lesson: Lesson, settings: Tuning) -> Callable[[], float]:
    return judge_of(model, lesson.check, objective_of(lesson.check, lesson.goal, settings))


def _learner(model: Any, lesson: Lesson, settings: Tuning) -> Callable[[Taught], Any]:
    """One step of AdamW (arXiv 1711.05101) on a batch, at a rate that falls by a cosine."""
    steps = max(1, settings.total_steps(lesson.train.number))
    rate = tf_keras.optimizers.schedules.CosineDecay(settings.rate, decay_steps=steps)
    optimizer = tf_keras.optimizers.AdamW(rate, weight_decay=settings.decay, global_clipnorm=1.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    variables = model.trainable_variables
    optimizer.build(variables)
    objective = objective_of(lesson.train, lesson.goal, settings)

    def learn(batch: Taught) -> None:
        with tf.GradientTape() as tape:
            loss = objective(call(model, batch.inputs, True), batch)
            if model.losses:
                loss += tf.add_n(model.losses)
        pairs = zip(tape.gradient(loss, variables), variables, strict=True)
        optimizer.apply_gradients([(gradient, variable) for gradient, variable in pairs if gradient is not None])

    return in_one_call(learn, settings.batch)


def _said(score: float | None) -> str:
    return "" if score is None else f", accuracy {score:.3f}"
