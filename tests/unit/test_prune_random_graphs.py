"""Graphs that nobody thought of: what is cut still computes what the masked model does."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optimizer.prune.coupling import couple
from optimizer.prune.importance import by_weights
from optimizer.prune.ledger import size_of
from optimizer.prune.select import select
from optimizer.prune.sensitivity import masked
from optimizer.prune.surgery import cut
from tests.prune_zoo import answers, built, rows_for

layers = keras.layers
KINDS = ("conv", "depthwise", "separable", "norm", "relu", "add", "multiply", "concatenate", "gate", "shuffle")
steps = st.tuples(st.sampled_from(KINDS), st.integers(0, 9), st.integers(0, 9), st.integers(2, 6))


def grow(plan: list[tuple[str, int, int, int]]) -> Any:
    """A model by a plan: every step reads one or two of the tensors so far and adds one."""
    x = keras.Input((4, 4, 3))
    pool = [layers.Conv2D(4, 1)(x), layers.Conv2D(6, 1)(x)]
    for kind, first, second, width in plan:
        pool.append(_step(kind, pool[-1 - first % len(pool)], pool[-1 - second % len(pool)], width))
    flat = layers.Concatenate()([layers.Flatten()(pool[-1]), layers.Flatten()(pool[-2])])
    return keras.Model(x, layers.Dense(2)(flat))


def _step(kind: str, a: Any, b: Any, width: int) -> Any:
    if kind == "conv":
        return layers.Conv2D(width, 3, padding="same")(a)
    if kind == "depthwise":
        return layers.DepthwiseConv2D(3, padding="same", depth_multiplier=1 + width % 2)(a)
    if kind == "separable":
        return layers.SeparableConv2D(width, 3, padding="same")(a)
    if kind == "norm":
        return layers.BatchNormalization()(a)
    if kind == "concatenate":
        return layers.Concatenate()([a, b])
    if kind == "gate":
        squeezed = layers.GlobalAveragePooling2D(keepdims=True)(a)
        return layers.Multiply()([a, layers.Conv2D(a.shape[-1], 1, activation="sigmoid")(squeezed)])
    if kind == "shuffle":
        return layers.Reshape((4, 4, a.shape[-1]))(layers.Flatten()(a))
    if kind in ("add", "multiply") and a.shape == b.shape:
        return (layers.Add() if kind == "add" else layers.Multiply())([a, b])
    return layers.ReLU()(a)


@given(st.lists(steps, max_size=8), st.floats(0, 1))
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
def test_any_graph_of_known_layers_is_cut_as_if_it_was_masked(
    plan: list[tuple[str, int, int, int]], ratio: float
) -> None:
    model = built(lambda: grow(plan))
    coupling, rows = couple(model), rows_for(model, 2)
    assert coupling.barriers == ()
    kept = select(coupling, by_weights(coupling), {group.name: ratio for group in coupling.prunable()})
    smaller = cut(model, coupling, kept)
    assert size_of(coupling, kept).parameters == smaller.count_params()
    with masked(coupling, kept):
        expected = answers(model, rows)[0]
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(answers(smaller, rows)[0] / scale, expected / scale, atol=1e-4)
