"""Which channels go together, which stay, and why: found from the graph."""

from __future__ import annotations

from typing import Any

import keras
import pytest

from optimizer.errors import RefusedError
from optimizer.prune.coupling import Coupling, Group, couple
from tests import prune_zoo as zoo

layers = keras.layers


def groups(coupling: Coupling) -> dict[frozenset[str], Group]:
    """By the axes that are in one."""
    return {frozenset(group.axes): group for group in coupling.groups}


def reasons(coupling: Coupling) -> dict[str, str]:
    return {barrier.path: barrier.reason for barrier in coupling.barriers}


def model_of(*parts: Any, shape: tuple[int, ...] = (6, 6, 3)) -> Any:
    """A stem of 8 channels, the parts, a head."""
    return keras.Sequential(
        [keras.Input(shape), layers.Conv2D(8, 1, name="stem"), *parts, layers.Flatten(), layers.Dense(2, name="head")]
    )


def test_what_is_added_or_gated_goes_together_and_what_lies_inside_of_a_block_goes_by_itself() -> None:
    found = groups(couple(zoo.residual()))
    assert set(found) == {
        frozenset({"stem/filters", "back0/filters", "back1/filters", "excite/filters"}),
        frozenset({"wide0/filters"}),
        frozenset({"wide1/filters"}),
        frozenset({"squeeze/filters"}),
        frozenset({"scores/units"}),
    }
    stem = found[frozenset({"stem/filters", "back0/filters", "back1/filters", "excite/filters"})]
    assert len(stem.classes) == 8
    assert stem.free.all()


def test_concatenated_channels_stay_apart() -> None:
    found = groups(couple(zoo.dense_net()))
    assert {frozenset({"a/filters"}), frozenset({"b/filters"})} <= set(found)


def test_units_that_become_one_channel_of_a_picture_go_together() -> None:
    (seeds,) = (group for axes, group in groups(couple(zoo.generator())).items() if "seeds/units" in axes)
    assert len(seeds.axes["seeds/units"]) == 72
    assert len(seeds.classes) == 8


def test_inputs_and_outputs_of_the_model_stay() -> None:
    coupling = couple(zoo.dense_net())
    fixed = {group.name: group.reasons for group in coupling.groups if not group.free.all()}
    assert fixed == {
        "left/units": ("output: output of the model",),
        "right/units": ("output: output of the model",),
    }
    assert coupling.barriers == ()


def test_heads_inner_sizes_and_output_of_attention_are_cut_apart() -> None:
    found = groups(couple(zoo.attention()))
    inner = {f"{name}/{axis}" for name in ("across", "self") for axis in ("num_heads", "key_dim", "value_dim")}
    assert {frozenset({name}) for name in inner} <= set(found)
    assert frozenset({"across/output_shape", "self/output_shape"}) in found


def test_states_that_are_handed_on_tie_units() -> None:
    assert frozenset({"encoder/units", "decoder/units"}) in groups(couple(zoo.recurrent()))


def test_a_layer_without_a_rule_is_pruned_around_and_named() -> None:
    model = model_of(layers.Conv2D(10, 1, name="before"), zoo.Own(name="mine"), layers.Conv2D(12, 1, name="after"))
    coupling = couple(model)
    assert reasons(coupling) == {"mine": "no rule for this kind of layer"}
    assert coupling.barriers[0].kind == "Own"
    assert {group.name for group in coupling.prunable()} == {"stem/filters", "after/filters"}


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (layers.EinsumDense("abcd,cde->abe", (6, 4), name="part"), "other axes than the last"),
        (layers.GroupNormalization(3, axis=1, name="part"), "axis other than the last"),
        (layers.Conv2D(8, 3, data_format="channels_first", name="part"), "must stand last"),
        (layers.BatchNormalization(axis=1, name="part"), "axis other than the last"),
        (layers.LayerNormalization(axis=[1, 2, 3], name="part"), "axis other than the last"),
        (layers.Permute((3, 1, 2), name="part"), "moves the channels"),
        (layers.Conv2D(8, 1, activation="softmax", name="part"), "softmax"),
        (layers.Softmax(name="part"), "softmax"),
        (layers.Rescaling([1.0] * 8, name="part"), "constant per channel"),
    ],
)
def test_what_a_rule_cannot_follow_is_a_barrier_with_its_reason(part: Any, reason: str) -> None:
    assert reason in reasons(couple(model_of(part)))["part"]


def test_groups_stay_of_equal_size_and_lose_the_same_channels() -> None:
    found = groups(couple(zoo.grouped()))
    assert len(found[frozenset({"stem/filters"})].classes) == 4
    assert len(found[frozenset({"pair/filters"})].classes) == 6
    assert {frozenset({"mixed/output_shape"}), frozenset({"plain/output_shape"})} <= set(found)
    norm = groups(couple(zoo.group_norm()))
    assert len(norm[frozenset({"stem/filters"})].classes) == 4
    assert len(norm[frozenset({"next/filters"})].classes) == 6


def test_attention_without_weights_of_its_own_is_pruned_around_and_named() -> None:
    coupling = couple(zoo.dot_attention())
    assert reasons(coupling) == dict.fromkeys(("dot", "additive"), "no rule for this kind of layer")
    assert {group.name for group in coupling.prunable()} == {"before/filters", "after/units"}


def test_a_layer_of_the_users_own_with_a_known_name_has_no_rule() -> None:
    dense = type("Dense", (keras.layers.Dense,), {"call": lambda self, inputs: inputs[..., ::-1]})
    coupling = couple(model_of(dense(8, name="mine")))
    assert reasons(coupling) == {"mine": "no rule for this kind of layer"}


def test_a_layer_in_two_nested_models_is_refused() -> None:
    seen, x = keras.Input((8,)), keras.Input((8,))
    part = keras.Sequential([keras.Input((8,)), layers.Dense(8)], name="part")
    tower = keras.Model(seen, part(seen), name="tower")
    with pytest.raises(RefusedError, match="one layer in two models"):
        couple(keras.Model(x, layers.Dense(2)(part(tower(x)))))


def test_a_model_without_a_graph_is_refused() -> None:
    with pytest.raises(RefusedError, match="no graph of layers"):
        couple(type("Mine", (keras.Model,), {})())


def test_masks_stand_in_no_ones_way() -> None:
    coupling = couple(zoo.masked_tokens())
    assert coupling.barriers == ()
    assert all(group.free.all() or group.reasons == ("output: output of the model",) for group in coupling.groups)
