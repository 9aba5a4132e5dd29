"""Pruning as a whole: budget met, teacher untouched, barriers named, and quality kept by fine-tuning."""

from __future__ import annotations

from typing import Any

import keras
import msgspec
import numpy as np
import pytest

from optimizer.data import Array
from optimizer.distill import Taught, goal_of, tune
from optimizer.errors import RefusedError
from optimizer.prune.budget import BudgetError
from optimizer.prune.run import Rows, prune, shares
from optimizer.prune.settings import Pruning
from optimizer.tuning import Tuning
from tests import prune_zoo as zoo
from tests.prune_zoo import built, rows_for

layers = keras.layers
QUICK = Pruning(
    rounds=2, rows=256, between=Tuning(epochs=2, rate=5e-3, dropout=0.0), after=Tuning(epochs=8, rate=5e-3, dropout=0.0)
)


def silent(fraction: float, detail: str) -> None:
    assert 0 <= fraction <= 1


def rings(count: int, seed: int) -> Rows:
    """Two classes: within and beyond a ring."""
    x = np.random.default_rng(seed).normal(size=(count, 4)).astype("float32")
    return Rows((x,), ((x[:, :2] ** 2).sum(1) > 1.4).astype(np.int64))


def accuracy(model: Any, rows: Rows) -> float:
    assert rows.labels is not None
    return float((np.asarray(model(rows.inputs[0])).argmax(1) == rows.labels).mean())


def trained() -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(48, "relu"), zoo.Own(), layers.Dense(48, "relu"), layers.Dense(2, "softmax")]
    )
    train, check = (Taught(rows.inputs, rows.labels, None) for rows in (rings(4000, 1), rings(500, 2)))
    tune(model, train, check, goal_of(np.asarray(model(check.inputs[0]))), Tuning(epochs=8, rate=1e-2), silent)
    return model


@pytest.mark.parametrize("labelled", [True, False])
def test_a_third_of_the_parameters_keeps_the_quality(labelled: bool) -> None:
    teacher = trained()
    before = teacher.get_weights()
    train, check = (Rows(rows.inputs, rows.labels if labelled else None) for rows in (rings(4000, 1), rings(500, 2)))
    told: list[str] = []
    student, report = prune(
        teacher,
        train,
        check,
        Pruning(budget=0.3, rounds=3, rows=512, between=QUICK.between, after=QUICK.after),
        lambda fraction, detail: told.append(detail),
    )
    assert report.before.parameters == teacher.count_params()
    assert report.after.parameters == student.count_params() <= 0.3 * teacher.count_params()
    assert accuracy(student, rings(2000, 3)) > accuracy(teacher, rings(2000, 3)) - 0.03
    assert [barrier.kind for barrier in report.barriers] == ["Own"]
    assert [free for _, free, _ in list(report.groups.values())[:2]] == [0, 48]
    assert any("round 3 of 3" in detail for detail in told)
    for old, new in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_macs_are_a_budget_too() -> None:
    model = built(zoo.waves)
    student, report = prune(model, *_answered(model), msgspec.structs.replace(QUICK, of="macs", budget=0.5), silent)
    assert report.after.macs <= 0.5 * report.before.macs
    assert student.output_shape == model.output_shape


@pytest.mark.parametrize("importance", ["weights", "scales", "loss"])
@pytest.mark.parametrize("build", [zoo.mlp, zoo.gru, zoo.transformer, zoo.residual])
def test_models_without_labels_are_pruned_by_their_answers(build: Any, importance: Any) -> None:
    model = built(build)
    settings = Pruning(budget=0.6, rounds=1, rows=32, importance=importance, ratios=(0.5,), after=Tuning(epochs=1))
    student, report = prune(model, *_answered(model), settings, silent)
    assert student.count_params() <= 0.6 * model.count_params()
    assert len(report.rounds) == 1


def test_residual_branches_that_nobody_misses_go_first() -> None:
    model = built(zoo.residual)
    model.get_layer("back1").set_weights([np.zeros(weight.shape) for weight in model.get_layer("back1").weights])
    settings = Pruning(budget=0.5, rounds=1, rows=32, blocks=1e-4, after=Tuning(epochs=1))
    student, report = prune(model, *_answered(model), settings, silent)
    assert report.blocks == ("add1",)
    assert "wide1" not in {layer.name for layer in student.layers}
    assert report.after.parameters <= 0.5 * report.before.parameters


def test_a_budget_out_of_reach_is_refused() -> None:
    with pytest.raises(BudgetError):
        prune(built(zoo.mlp), *_answered(built(zoo.mlp)), Pruning(budget=0.001, rows=32), silent)
    with pytest.raises(RefusedError, match="between 0 and 1"):
        prune(built(zoo.mlp), *_answered(built(zoo.mlp)), Pruning(budget=0), silent)


def test_a_model_of_several_outputs_is_taught_by_what_it_answered_itself() -> None:
    model = built(zoo.dense_net)
    student, report = prune(model, *_answered(model), msgspec.structs.replace(QUICK, rounds=1), silent)
    assert report.after.parameters <= 0.5 * report.before.parameters
    assert student.output_names == model.output_names
    assert report.rounds[0].tuned.losses[-1] < report.rounds[0].tuned.losses[0]
    assert report.rounds[0].tuned.accuracy is None


def test_a_budget_of_all_leaves_the_model_bit_by_bit_and_trains_nothing() -> None:
    model = built(zoo.residual)
    student, report = prune(model, *_answered(model), Pruning(budget=1.0), silent)
    assert student is not model
    assert report.rounds == ()
    assert report.after == report.before
    for before, after in zip(model.get_weights(), student.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_what_stayed_of_every_group_and_the_accuracy_are_told() -> None:
    teacher = trained()
    student, report = prune(teacher, rings(500, 1), rings(500, 2), msgspec.structs.replace(QUICK, rounds=1), silent)
    assert list(report.groups.values())[1][2] == student.layers[-2].units < 48
    assert report.accuracy == pytest.approx(accuracy(teacher, rings(500, 2)))
    assert report.rounds[-1].tuned.accuracy == pytest.approx(accuracy(student, rings(500, 2)))
    assert report.rounds[-1].tuned.steps == 8 * -(-500 // 64)


def test_the_rounds_of_a_pruning_have_one_loss() -> None:
    settings = Pruning(between=Tuning(loss="mse"))
    with pytest.raises(RefusedError, match="one loss"):
        prune(built(zoo.mlp), *_answered(built(zoo.mlp)), settings, silent)


def test_rounds_take_equal_shares() -> None:
    assert shares(0.125, 3) == pytest.approx([0.5, 0.25, 0.125])


def _answered(model: Any) -> tuple[Rows, Rows]:
    rows: list[Array] = rows_for(model, 64)
    return Rows(tuple(rows)), Rows(tuple(part[:32] for part in rows))
