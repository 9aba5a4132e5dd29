"""What can be set of fine-tuning: loss, penalties, optimizer, schedule, features, several outputs, seeds."""

from __future__ import annotations

from typing import Any, Literal

import keras
import msgspec
import numpy as np
import pytest
import tensorflow as tf

from optimizer import losses
from optimizer.calling import outputs_of
from optimizer.data import Array
from optimizer.descent import Rate
from optimizer.distill import Goal, Taught, Tuned, goal_of, teach, tune
from optimizer.errors import RefusedError
from optimizer.features import alike, with_features
from optimizer.objective import guess
from optimizer.tuning import Tuning

layers = keras.layers
CLASSES = Goal("sparse_categorical_crossentropy", True)


def silent(fraction: float, detail: str) -> None:
    assert 0 <= fraction <= 1


def net(units: int = 16, *, drop: float = 0.0) -> Any:
    keras.utils.set_random_seed(units)
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(units, "relu"), layers.Dropout(drop), layers.Dense(2, "softmax")]
    )


def labelled(count: int = 512, seed: int = 1) -> Taught:
    x = np.random.default_rng(seed).normal(size=(count, 4)).astype("float32")
    return Taught((x,), (x[:, 0] + x[:, 1] > 0).astype(np.int64), None)


def tuned(model: Any, settings: Tuning, goal: Goal = CLASSES, teacher: Any = None) -> Tuned:
    rows, check = labelled(), labelled(256, 2)
    if teacher is not None:
        rows, check = (part._replace(teacher=teach(teacher, part.inputs, goal)) for part in (rows, check))
    return tune(model, rows, check, goal, settings, silent, teacher)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("schedule", ["cosine", "constant", "linear", "step"])
def test_every_optimizer_and_schedule_learns(
    optimizer: Literal["adamw", "adam", "sgd"], schedule: Literal["cosine", "constant", "linear", "step"]
) -> None:
    rate = 0.2 if optimizer == "sgd" else 2e-2
    settings = Tuning(epochs=6, rate=rate, optimizer=optimizer, schedule=schedule, warmup=0.1)
    found = tuned(net(), settings)
    assert found.accuracy is not None
    assert found.accuracy > 0.9


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Tuning(rate=1.0), [1.0, 0.5, 0.0]),
        (Tuning(rate=1.0, schedule="linear"), [1.0, 0.5, 0.0]),
        (Tuning(rate=1.0, schedule="constant"), [1.0, 1.0, 1.0]),
        (Tuning(rate=1.0, schedule="step"), [1.0, 0.1, 0.01]),
        (Tuning(rate=1.0, schedule="constant", warmup=0.5), [0.02, 1.0, 1.0]),
        (Tuning(rate=1.0, schedule="linear", warmup=0.5), [0.02, 1.0, 0.0]),
    ],
)
def test_the_rate_rises_and_falls_as_the_settings_say(settings: Tuning, expected: list[float]) -> None:
    rate = Rate(settings, 100)
    assert [float(rate(tf.constant(step))) for step in (0, 50, 100)] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_a_penalty_makes_kernels_small_and_leaves_biases_free(penalty: str) -> None:
    free, held = net(), net()
    for model in (free, held):
        model.layers[-1].bias.assign([5.0, 5.0])
    settings = Tuning(epochs=3, decay=0.0, rate=1e-2)
    judged = labelled(256, 2)
    for model, given in ((free, settings), (held, msgspec.structs.replace(settings, **{penalty: 0.1}))):
        tune(model, labelled(), judged, CLASSES, given, silent)
    assert np.abs(held.get_weights()[0]).sum() < 0.8 * np.abs(free.get_weights()[0]).sum()
    assert held.layers[-1].bias.numpy() == pytest.approx([5.0, 5.0], abs=1.0)


@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", "binary_crossentropy", "mse"])
def test_every_loss_can_be_asked_for_with_classes_as_labels(loss: Any) -> None:
    model = net()
    outputs = np.asarray(model(labelled().inputs[0]))
    found = tuned(model, Tuning(epochs=6, rate=2e-2, loss=loss), goal_of(outputs, loss))
    assert found.accuracy is not None
    assert found.accuracy > 0.9


def test_scores_without_a_softmax_are_logits_where_labels_are_classes_and_values_where_there_are_none() -> None:
    keras.utils.set_random_seed(0)
    model, rows = keras.Sequential([keras.Input((4,)), layers.Dense(2)]), labelled()
    assert guess(model, rows.inputs, rows.labels, Tuning()) == CLASSES._replace(probabilities=False)
    assert guess(model, rows.inputs, None, Tuning()) == Goal("mse", False)
    assert guess(model, rows.inputs, rows.labels, Tuning(loss="mse")) == Goal("mse", False)


def test_rows_that_are_alike_to_both_cost_nothing_whatever_the_widths() -> None:
    few = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    wide = np.concatenate([few, np.zeros((8, 5), "float32")], 1) * 7
    other = np.random.default_rng(1).normal(size=(8, 4)).astype("float32")
    assert float(alike(few, wide)) == pytest.approx(0, abs=1e-6)
    assert 0.01 < float(alike(few, other)) <= 4 / 8


@pytest.mark.parametrize("mix", [0.0, 0.3])
def test_features_bring_a_narrower_students_similarities_nearer_to_the_teachers(mix: float) -> None:
    teacher, rows = net(32), labelled(64, 3)
    tuned(teacher, Tuning(epochs=4, rate=2e-2))
    plain, taught = net(6), net(6)
    settings = Tuning(epochs=6, rate=1e-2, mix=mix)
    tuned(plain, settings, teacher=teacher)
    tuned(taught, msgspec.structs.replace(settings, features=3000.0), teacher=teacher)

    def apart(model: Any) -> float:
        hidden = [outputs_of(with_features(one), rows.inputs, False)[-1] for one in (model, teacher)]
        return float(alike(*hidden))

    assert apart(taught) < 0.8 * apart(plain)


def test_features_of_a_head_in_a_nested_model_and_of_nobody_are_refused() -> None:
    x = keras.Input((4,))
    nested = keras.Model(x, net()(x))
    with pytest.raises(RefusedError, match="nested"):
        tuned(nested, Tuning(epochs=1, features=1.0), teacher=nested)
    with pytest.raises(RefusedError, match="there is none"):
        tuned(net(), Tuning(epochs=1, features=1.0))


def two_heads(units: int) -> Any:
    keras.utils.set_random_seed(units)
    x = keras.Input((4,))
    flow = layers.Dense(units, "relu")(x)
    return keras.Model(x, {"a": layers.Dense(3, "softmax")(flow), "b": layers.Dense(1)(flow)})


@pytest.mark.parametrize("settings", [Tuning(), Tuning(mix=0.4), Tuning(features=100.0)])
def test_every_output_is_taught_by_its_own_kind_of_loss(settings: Tuning) -> None:
    teacher, student, rows = two_heads(24), two_heads(12), labelled()
    goal = guess(teacher, rows.inputs, rows.labels, settings)
    assert [aim.loss for aim in goal] == ["sparse_categorical_crossentropy", "mse"]
    given = rows._replace(teacher=teach(teacher, rows.inputs, goal))
    before = _apart(teacher, student, rows.inputs[0])
    found = tune(student, given, given, goal, msgspec.structs.replace(settings, epochs=15, rate=1e-2), silent, teacher)
    after = _apart(teacher, student, rows.inputs[0])
    assert all(new < old / 2 for old, new in zip(before, after, strict=True))
    assert found.accuracy is None


def test_labels_alone_do_not_teach_several_outputs() -> None:
    model, rows = two_heads(4), labelled()
    with pytest.raises(RefusedError, match="teacher alone"):
        tune(model, rows, rows, guess(model, rows.inputs, rows.labels, Tuning()), Tuning(epochs=1), silent)


def _apart(teacher: Any, student: Any, x: Array) -> list[float]:
    theirs, own = (keras.tree.flatten(model(x)) for model in (teacher, student))
    return [float(np.square(a - b).mean()) for a, b in zip(theirs, own, strict=True)]


@pytest.mark.parametrize("settings", [Tuning(epochs=2), Tuning(epochs=2, mix=0.3)])
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(settings: Tuning) -> None:
    teacher, weights = net(20), []
    for seed in (5, 5, 6):
        student = net(8, drop=0.3)
        tf.random.uniform((3,))
        tuned(student, msgspec.structs.replace(settings, seed=seed), teacher=teacher)
        weights.append(student.get_weights())
    for first, again in zip(weights[0], weights[1], strict=True):
        np.testing.assert_array_equal(first, again)
    assert any((first != other).any() for first, other in zip(weights[0], weights[2], strict=True))


def test_a_convolution_gives_the_same_weights_again() -> None:
    x = np.random.default_rng(0).normal(size=(256, 12, 12, 1)).astype("float32")
    rows, weights = Taught((x,), (x.mean((1, 2, 3)) > 0).astype(np.int64), None), []
    for _ in range(2):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                *(keras.Input((12, 12, 1)), layers.Conv2D(8, 3), layers.BatchNormalization(), layers.ReLU()),
                *(layers.MaxPooling2D(), layers.Flatten(), layers.Dense(2, "softmax")),
            ]
        )
        tune(model, rows, rows, CLASSES, Tuning(epochs=2), silent)
        weights.append(model.get_weights())
    for first, again in zip(*weights, strict=True):
        np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize(
    ("settings", "rows", "total"),
    [
        (Tuning(epochs=3, batch=10), 95, 30),
        (Tuning(epochs=3, batch=10, most_steps=12), 95, 12),
        (Tuning(epochs=3, batch=10, most_steps=99), 95, 30),
        (Tuning(epochs=3, batch=10, most_steps=12, steps=50), 95, 50),
    ],
)
def test_many_rows_take_no_more_steps_than_they_may(settings: Tuning, rows: int, total: int) -> None:
    assert settings.total_steps(rows) == total


def test_the_last_epoch_is_cut_short_where_the_steps_end() -> None:
    settings = Tuning(epochs=9, batch=64, most_steps=11)
    found = tune(net(), labelled(), labelled(256, 2), CLASSES, settings, silent)
    assert (found.steps, found.epochs) == (11, 2)


def test_steps_in_place_of_epochs_are_done_to_the_last_and_what_it_took_is_told() -> None:
    told: list[str] = []
    model, rows, check = net(), labelled(), labelled(256, 2)
    found = tune(model, rows, check, CLASSES, Tuning(steps=19, batch=64), lambda fraction, detail: told.append(detail))
    assert (found.steps, found.epochs) == (19, 3)
    assert found.wall_s > found.epoch_s > 0
    assert found.before is not None
    assert told[0] == f"epoch 1 of 3, accuracy {found.before:.3f}"
    assert found.accuracy == pytest.approx(float((np.asarray(model(check.inputs[0])).argmax(1) == check.labels).mean()))


def test_without_labels_progress_tells_the_loss() -> None:
    teacher, told = net(20), list[str]()
    rows = labelled()._replace(labels=None, teacher=teach(teacher, labelled().inputs, CLASSES))
    tune(net(6), rows, rows, CLASSES, Tuning(epochs=1), lambda fraction, detail: told.append(detail))
    assert told[0].startswith("epoch 1 of 1, loss ")


def test_accuracy_is_of_classes_only() -> None:
    assert losses.accuracy("mse", np.array([0.5, 1.0])) is None
    assert losses.accuracy("mse", None) is None
    right = losses.accuracy("binary_crossentropy", np.array([1, 0]))
    assert right is not None
    assert float(right(np.array([[2.0], [1.0]], "float32"), np.array([1, 0]))) == 0.5
