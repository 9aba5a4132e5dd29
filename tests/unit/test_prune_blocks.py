"""Residual branches: which are found, and what is left without them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from optimizer.prune.blocks import blocks_of, spare, without
from tests import prune_zoo as zoo
from tests.prune_zoo import answers, built, rows_for

layers = keras.layers


def test_branches_are_found_with_their_layers() -> None:
    found = {block.add: set(block.layers) for block in blocks_of(built(zoo.residual))}
    assert set(found) == {"add0", "add1"}
    assert {"wide1", "back1"} <= found["add1"]
    assert "wide0" not in found["add1"]


def test_operations_add_too_and_attention_is_a_branch() -> None:
    found = [set(block.layers) for block in blocks_of(built(zoo.transformer))]
    assert {"attention0"} in found
    assert {"wide1", "back1"} in found
    assert len(found) == 4


def test_a_model_without_a_block_answers_as_one_whose_branch_gives_zero() -> None:
    model = built(zoo.residual)
    rows = rows_for(model)
    smaller = without(model, blocks_of(model)[:1])
    model.get_layer("back0").set_weights([np.zeros(w.shape) for w in model.get_layer("back0").weights])
    np.testing.assert_allclose(answers(smaller, rows)[0], answers(model, rows)[0], rtol=1e-5, atol=1e-6)
    assert "wide0" not in {layer.name for layer in smaller.layers}


def test_all_blocks_of_a_chain_can_go_also_inside_of_a_nested_model() -> None:
    inner, x = built(zoo.residual), keras.Input((8, 8, 3))
    model = keras.Model(x, layers.Dense(2)(inner(x)))
    blocks = blocks_of(model)
    assert [block.model for block in blocks] == [(inner.name,)] * 2
    smaller = without(model, blocks)
    assert not blocks_of(smaller)
    assert answers(smaller, rows_for(model))[0].shape == (4, 2)


def test_a_branch_that_something_else_reads_stays() -> None:
    x = keras.Input((4,))
    start = layers.Dense(4)(x)
    branch = layers.Dense(4)(start)
    joined = layers.Add()([start, branch])
    assert blocks_of(keras.Model(x, [layers.Dense(2)(joined), branch])) == []
    assert blocks_of(keras.Model(x, layers.Concatenate()([joined, branch]))) == []


def test_two_streams_that_meet_are_no_block() -> None:
    x, y = keras.Input((4,)), keras.Input((4,))
    joined = layers.Add()([layers.Dense(4)(x), layers.Dense(4)(y)])
    assert blocks_of(keras.Model([x, y], joined)) == []


def test_blocks_go_while_the_loss_stays_within_what_is_tolerated() -> None:
    model = built(zoo.residual)
    rows = rows_for(model, 16)
    # A branch that adds nothing can go; one that adds much cannot.
    model.get_layer("back1").set_weights([np.zeros(w.shape) for w in model.get_layer("back1").weights])
    whole = answers(model, rows)[0]

    def loss(other: Any) -> float:
        return float(np.square(answers(other, rows)[0] - whole).mean())

    assert [block.add for block in spare(model, loss, 1e-6)] == ["add1"]
    assert len(spare(model, loss, 1e9)) == 2
