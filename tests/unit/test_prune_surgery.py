"""Cutting: nothing at ratio 0, and elsewhere just what the uncut model computes without those channels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from optimizer.macs import of_keras
from optimizer.prune.coupling import couple
from optimizer.prune.ledger import size_of
from optimizer.prune.sensitivity import masked
from optimizer.prune.surgery import cut, layers_of
from tests import prune_zoo as zoo
from tests.prune_zoo import answers, built, halved, rows_for


@pytest.mark.parametrize("build", zoo.ALL)
def test_ratio_0_leaves_weights_and_answers_bit_by_bit(build: Callable[[], Any]) -> None:
    model = built(build)
    coupling = couple(model)
    same = cut(model, coupling, coupling.everything())
    assert same is not model
    assert [w.path for w in same.weights] == [w.path for w in model.weights]
    for before, after in zip(model.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    rows = rows_for(model)
    for ours, theirs in zip(answers(same, rows), answers(model, rows), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("ratio", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("build", zoo.EXACT)
def test_a_cut_model_answers_as_the_whole_one_that_hears_nothing_of_the_channels_that_went(
    build: Callable[[], Any], ratio: float
) -> None:
    model = built(build)
    coupling, rows = couple(model), rows_for(model)
    kept = halved(coupling, ratio)
    smaller = cut(model, coupling, kept)
    whole = answers(model, rows)
    with masked(coupling, kept):
        expected = answers(model, rows)
    for ours, theirs in zip(answers(smaller, rows), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5)
    for before, after in zip(whole, answers(model, rows), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("build", zoo.ALL)
def test_the_ledger_knows_the_size_of_a_model_that_was_not_built_yet(build: Callable[[], Any]) -> None:
    model = built(build)
    coupling = couple(model)
    for ratio in (0.0, 0.4):
        kept = halved(coupling, ratio)
        smaller = cut(model, coupling, kept)
        assert size_of(coupling, kept).parameters == smaller.count_params()
    assert size_of(coupling, coupling.everything()).parameters == model.count_params()


@pytest.mark.parametrize(
    "build", [zoo.residual, zoo.mobile, zoo.waves, zoo.gru, zoo.recurrent, zoo.attention, zoo.transformer, zoo.grouped]
)
def test_the_ledger_counts_the_macs_that_the_report_counts(build: Callable[[], Any]) -> None:
    model = built(build)
    coupling = couple(model)
    kept = halved(coupling)
    assert size_of(coupling, coupling.everything()).macs == of_keras(model.layers)
    assert size_of(coupling, kept).macs == of_keras(cut(model, coupling, kept).layers)


@pytest.mark.parametrize("build", zoo.ALL)
def test_half_of_every_free_group_goes_and_every_axis_keeps_a_channel(build: Callable[[], Any]) -> None:
    coupling = couple(built(build))
    kept = halved(coupling)
    for group in coupling.prunable():
        assert np.count_nonzero(~kept[group.classes]) == np.count_nonzero(group.free) // 2
        assert all(kept[labels].any() for labels in group.axes.values())


def test_a_normalized_model_is_cut_to_the_slices_of_its_weights() -> None:
    model = built(zoo.transformer)
    coupling = couple(model)
    stream = next(group for group in coupling.groups if group.name == "token/output_dim")
    gone = [1, 4, 5, 11]
    kept = coupling.everything()
    kept[stream.axes["token/output_dim"][gone]] = False
    old, new = (dict(layers_of(one)) for one in (model, cut(model, coupling, kept)))
    for name in ("norm0", "norm1"):
        for before, after in zip(old[name,].get_weights(), new[name,].get_weights(), strict=True):
            np.testing.assert_array_equal(np.delete(before, gone), after)
    kernel, bias = old["wide0",].get_weights()
    np.testing.assert_array_equal(np.delete(kernel, gone, 0), new["wide0",].get_weights()[0])
    np.testing.assert_array_equal(bias, new["wide0",].get_weights()[1])
    query = old["attention0",].get_weights()[0]
    np.testing.assert_array_equal(np.delete(query, gone, 0), new["attention0",].get_weights()[0])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_cut_model_is_saved_and_loaded_by_keras(tmp_path: Path) -> None:
    model = built(zoo.nested)
    coupling, rows = couple(model), rows_for(model)
    smaller = cut(model, coupling, halved(coupling))
    smaller.save(tmp_path / "smaller.keras")
    again = keras.saving.load_model(tmp_path / "smaller.keras")
    np.testing.assert_array_equal(answers(again, rows)[0], answers(smaller, rows)[0])


def test_names_nested_models_and_shared_layers_stay() -> None:
    model = built(zoo.nested)
    coupling = couple(model)
    smaller = cut(model, coupling, halved(coupling))
    assert [path for path, _ in layers_of(smaller)] == [path for path, _ in layers_of(model)]
    assert len(smaller.weights) == len(model.weights)
