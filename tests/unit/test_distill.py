"""Losses on logits, and fine-tuning by labels and by a teacher."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from optimizer import losses
from optimizer.data import Array
from optimizer.distill import Goal, Taught, goal_of, teach, tune
from optimizer.errors import RefusedError
from optimizer.tuning import Loss, Tuning

layers = keras.layers
CLASSES = Goal("sparse_categorical_crossentropy", True)


def silent(fraction: float, detail: str) -> None:
    assert 0 <= fraction <= 1


def net(units: int, last: str | None, outputs: int) -> Any:
    keras.utils.set_random_seed(units)
    return keras.Sequential([keras.Input((4,)), layers.Dense(units, "relu"), layers.Dense(outputs, last)])


def rows(count: int, seed: int) -> tuple[Array, Array]:
    x = np.random.default_rng(seed).normal(size=(count, 4)).astype("float32")
    return x, (x[:, 0] * x[:, 1] > 0).astype(np.int64)


def test_what_a_model_gives_says_which_loss_suits_it() -> None:
    assert goal_of(np.array([[0.2, 0.8]])) == CLASSES
    assert goal_of(np.array([[0.3], [0.9]])) == Goal("binary_crossentropy", True)
    assert goal_of(np.array([[3.0], [-1.0]])) == Goal("mse", False)
    assert goal_of(np.array([[3.0, -1.0]]), "sparse_categorical_crossentropy") == CLASSES._replace(probabilities=False)


@pytest.mark.parametrize("last", ["softmax", "sigmoid"])
def test_logits_are_found_behind_probabilities(last: str) -> None:
    model = net(8, last, 3 if last == "softmax" else 1)
    x = rows(16, 0)[0]
    goal = goal_of(np.asarray(model(x)))
    plain = teach(model, (x,), goal)
    by_logarithm = np.asarray(losses.logits(tf.constant(np.asarray(model(x))), *goal))
    shift = (by_logarithm - plain).mean(-1, keepdims=True) if last == "softmax" else 0
    np.testing.assert_allclose(by_logarithm - shift, plain, atol=1e-4)


@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", "mse"])
def test_a_student_that_agrees_loses_nothing_and_one_that_does_not_loses_something(loss: Loss) -> None:
    teacher = tf.constant([[1.0, -2.0], [0.5, 3.0]])
    soft = losses.soft(loss, 3.0)
    assert float(soft(teacher, teacher)) == pytest.approx(0, abs=1e-6)
    assert float(soft(-teacher, teacher)) > 0.1


def test_the_binary_losses_are_least_where_the_student_says_the_same() -> None:
    teacher, other = tf.constant([[1.0], [-2.0]]), tf.constant([[0.5], [-1.0]])
    soft = losses.soft("binary_crossentropy", 2.0)
    assert float(soft(teacher, teacher)) < float(soft(other, teacher))
    hard = losses.hard("binary_crossentropy")
    assert float(hard(teacher, np.array([1, 0]))) < float(hard(-teacher, np.array([1, 0])))


@pytest.mark.parametrize("mix", [0.0, 0.5])
@pytest.mark.parametrize(("last", "outputs"), [("softmax", 2), ("sigmoid", 1), (None, 2)])
def test_a_student_comes_closer_to_its_teacher_without_any_label(last: str | None, outputs: int, mix: float) -> None:
    teacher, student = net(16, last, outputs), net(12, last, outputs)
    (x, _), (c, _) = rows(512, 1), rows(128, 2)
    goal = goal_of(np.asarray(teacher(c)))
    data, check = (Taught((one,), None, teach(teacher, (one,), goal)) for one in (x, c))
    before = float(np.square(np.asarray(teacher(c)) - np.asarray(student(c))).mean())
    tuned = tune(student, data, check, goal, Tuning(epochs=20, batch=32, rate=1e-2, mix=mix), silent, teacher)
    after = float(np.square(np.asarray(teacher(c)) - np.asarray(student(c))).mean())
    assert after < before / 3
    assert tuned.loss == min(tuned.losses)


def test_labels_alone_teach_too_and_the_best_weights_are_kept() -> None:
    (x, y), (c, k) = rows(2000, 1), rows(500, 2)
    student = net(24, "softmax", 2)
    tuned = tune(student, Taught((x,), y, None), Taught((c,), k, None), CLASSES, Tuning(epochs=30, rate=2e-2), silent)
    assert (np.asarray(student(c)).argmax(1) == k).mean() > 0.9
    judged = tune(student, Taught((x,), y, None), Taught((c,), k, None), CLASSES, Tuning(epochs=0), silent)
    assert judged.epochs == 0
    assert judged.loss == pytest.approx(tuned.loss, rel=1e-4)


def test_training_ends_when_nothing_gets_better() -> None:
    (x, y), (c, k) = rows(64, 1), rows(64, 2)
    settings = Tuning(epochs=200, rate=5e-2, patience=3, decay=0.0)
    tuned = tune(net(64, "softmax", 2), Taught((x,), y, None), Taught((c,), k, None), CLASSES, settings, silent)
    assert tuned.epochs < 200
    assert min(tuned.losses[-3:]) > tuned.loss


def test_dropout_is_left_out_while_tuning_and_is_there_again_after() -> None:
    x, y = rows(64, 1)
    seen: list[float] = []
    drop = layers.Dropout(0.4)
    student = keras.Sequential([keras.Input((4,)), layers.Dense(4), drop, layers.Dense(2, "softmax")])
    data = Taught((x,), y, None)
    tune(student, data, data, CLASSES, Tuning(epochs=1, dropout=0.5), lambda fraction, detail: seen.append(drop.rate))
    assert set(seen) == {0.2}
    assert drop.rate == 0.4


def test_tokens_are_not_mixed() -> None:
    x = np.arange(64).reshape(16, 4)
    data, model = Taught((x,), None, np.zeros((16, 2), np.float32)), net(4, "softmax", 2)
    with pytest.raises(RefusedError, match="cannot be mixed"):
        tune(model, data, data, CLASSES, Tuning(epochs=1, mix=0.5), silent, model)


def test_without_labels_and_teacher_there_is_nothing_to_learn_from() -> None:
    x, _ = rows(64, 1)
    data = Taught((x,), None, None)
    with pytest.raises(RefusedError, match="nothing to learn from"):
        tune(net(8, "softmax", 2), data, data, CLASSES, Tuning(epochs=1), silent)
