"""Scores before a softmax get the range in which classes are told apart, and nothing else changes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agent.runtime import load, predict
from optimizer.data import Array
from optimizer.flatfile import Flatfile
from optimizer.quantize import quantize
from optimizer.softmax_range import range_of, scores_of
from tests.benchmarks.optimizer.convert import plain_int8
from tests.builders import RUNTIMES

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
FEATURES, CLASSES = 32, 10
SCORES = arrays(np.float64, (7, CLASSES), elements=st.floats(-200, 200, width=32))


@given(SCORES)
def test_what_is_cut_off_changes_no_probability_by_more_than_half_a_step(rows: Array) -> None:
    low, high = range_of(rows)
    assert np.abs(softmax(rows) - softmax(np.clip(rows, low, high))).max() <= 1 / 512 + 1e-9


def test_one_class_keeps_its_range() -> None:
    assert range_of(np.array([[3.0], [-2.0]])) == (-2.0, 3.0)


def test_close_classes_of_an_overconfident_model_stay_apart() -> None:
    model, rows = overconfident(), drawn(4000)
    wanted = model.predict(rows, verbose=0).argmax(1)
    ours = answers(quantize(model, {"x": rows[:256]}), rows)
    plain = answers(plain_int8(model, rows[:256]), rows)
    missed, missed_plain = (int((found.argmax(1) != wanted).sum()) for found in (ours, plain))
    print(f"other answers than the float model's, of {len(rows)}: {missed}; by TFLiteConverter alone {missed_plain}")
    assert missed < 0.8 * missed_plain


def test_scores_that_are_an_output_too_keep_their_range() -> None:
    inner = overconfident(last="linear")
    both = keras.Model(inner.input, [inner.output, keras.layers.Softmax(name="share")(inner.output)])
    content = quantize(both, {"x": drawn(64)})
    assert scores_of(Flatfile(content)) == []
    scores = next(array for array in predict(load(content, runtimes=RUNTIMES), {"x": drawn(64)}).values())
    assert np.abs(scores).max() > 60


def overconfident(last: str = "softmax") -> Any:
    inputs = keras.Input((FEATURES,), name="x")
    model = keras.Model(inputs, keras.layers.Dense(CLASSES, activation=last, name="scores")(inputs))
    weights = np.random.default_rng(1).normal(scale=8.0, size=(FEATURES, CLASSES))
    model.set_weights([weights, np.zeros(CLASSES)])
    return model


def drawn(rows: int) -> Array:
    return np.random.default_rng(2).uniform(-1, 1, (rows, FEATURES)).astype(np.float32)


def answers(content: bytes, rows: Array) -> Array:
    return next(iter(predict(load(content, runtimes=RUNTIMES), {"x": rows}).values()))


def softmax(rows: Array) -> Array:
    powers = np.exp(rows - rows.max(-1, keepdims=True))
    shares: Array = powers / powers.sum(-1, keepdims=True)
    return shares
