"""What a channel's score says, and which channels go by it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from optimizer.prune.coupling import Group, couple
from optimizer.prune.importance import by_loss, by_scales, by_weights
from optimizer.prune.select import removed_of, select, wanted
from optimizer.prune.sensitivity import masked, measure
from optimizer.prune.settings import Least
from tests import prune_zoo as zoo
from tests.prune_zoo import answers, built, rows_for

layers = keras.layers


def two_layers() -> Any:
    x = keras.Input((3,))
    flow = layers.BatchNormalization(name="norm")(layers.Dense(4, name="wide")(x))
    return keras.Model(x, layers.Dense(2, name="scores")(layers.ReLU()(flow)))


def squared(outputs: Any, targets: Any) -> Any:
    return tf.reduce_mean(tf.math.squared_difference(outputs, targets))


def test_larger_weights_and_larger_scales_score_higher() -> None:
    model = built(two_layers)
    model.get_layer("wide").set_weights([np.array([[1, 4, 2, 3]] * 3), np.zeros(4)])
    norm = model.get_layer("norm")
    norm.set_weights([np.array([4.0, -3.0, 2.0, 1.0]), *norm.get_weights()[1:]])
    coupling = couple(model)
    wide = coupling.prunable()[0].classes
    assert np.argsort(by_weights(coupling)[wide]).tolist() == [0, 2, 3, 1]
    assert np.argsort(by_scales(coupling)[wide]).tolist() == [3, 2, 1, 0]


def test_groups_without_a_scale_are_scored_by_their_weights() -> None:
    coupling = couple(built(zoo.mlp))
    np.testing.assert_array_equal(by_scales(coupling), by_weights(coupling))


def test_the_loss_score_is_what_the_loss_changes_when_a_channel_fades() -> None:
    model = built(zoo.mlp)
    coupling = couple(model)
    rows, group = rows_for(model, 32)[0], coupling.prunable()[0]
    target = np.zeros((32, 3), np.float32)
    scores = by_loss(coupling, model, [(rows, target)], squared)[group.classes]

    kernel, bias = model.layers[2].get_weights()
    before = float(squared(answers(model, [rows])[0], target))
    changes = []
    for unit in range(len(kernel)):
        faded = kernel.copy()
        faded[unit] *= 0.99
        model.layers[2].set_weights([faded, bias])
        changes.append(abs(float(squared(answers(model, [rows])[0], target)) - before))
    model.layers[2].set_weights([kernel, bias])
    np.testing.assert_allclose(scores / scores.sum(), changes / np.sum(changes), rtol=0.05, atol=2e-3)


def test_every_channel_of_every_kind_of_layer_gets_a_score_by_the_loss() -> None:
    for build in (zoo.residual, zoo.gru, zoo.transformer):
        model = built(build)
        coupling, rows = couple(model), rows_for(model, 8)
        target = np.zeros_like(answers(model, rows)[0])
        scores = by_loss(coupling, model, [(rows if len(rows) > 1 else rows[0], target)], squared)
        assert np.isfinite(scores).all()
        for group in coupling.prunable():
            assert scores[group.classes].mean() == pytest.approx(1), group.name


def test_a_group_is_measured_alone_and_leaves_no_trace() -> None:
    model = built(zoo.mlp)
    coupling, rows = couple(model), rows_for(model, 16)
    whole, before = answers(model, rows)[0], model.get_weights()
    scores = by_weights(coupling)
    told: list[str] = []
    curves = measure(
        coupling,
        scores,
        lambda: float(squared(answers(model, rows)[0], whole)),
        (0.5, 1.0),
        lambda _, d: told.append(d),
    )
    assert set(curves) == {group.name for group in coupling.prunable()}
    for name, ((half, little), (_, much)) in curves.items():
        with masked(coupling, select(coupling, scores, {name: half})):
            assert little == pytest.approx(float(squared(answers(model, rows)[0], whole)))
        assert 0 < little < much
    assert len(told) == 2
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@given(st.lists(st.floats(0, 10), min_size=8, max_size=8), st.integers(0, 8), st.integers(1, 3))
def test_the_lowest_scores_go_but_never_more_than_an_axis_can_spare(
    scores: list[float], count: int, least: int
) -> None:
    """Two axes, one of the first three channels; channel 7 may not go."""
    classes = np.arange(8)
    free = classes < 7
    group = Group("g", {"short": classes[:3], "long": classes}, classes, free, ())
    removed = removed_of(group, np.array(scores), count, least)
    kept = np.setdiff1d(classes, removed)
    assert 7 in kept
    assert np.count_nonzero(kept < 3) >= least
    assert len(removed) <= count
    freely = [one for one in removed.tolist() if one >= 3]
    staying = [one for one in kept.tolist() if 3 <= one < 7]
    assert not freely or not staying or max(np.array(scores)[freely]) <= min(np.array(scores)[staying])


@given(st.integers(1, 200), st.floats(0, 1), st.sampled_from([1, 4, 8]))
def test_a_multiple_of_channels_is_kept_where_there_are_enough(total: int, ratio: float, multiple: int) -> None:
    classes = np.arange(total)
    group = Group("g", {"a": classes}, classes, np.ones(total, bool), ())
    gone = wanted(group, ratio, multiple)
    assert 0 <= gone <= total * ratio + 1e-6
    assert gone == 0 or (total - gone) % multiple == 0


def test_a_ratio_that_is_none_is_refused() -> None:
    coupling = couple(built(zoo.mlp))
    with pytest.raises(ValueError, match="between 0 and 1"):
        select(coupling, by_weights(coupling), {coupling.prunable()[0].name: 1.5}, Least())
