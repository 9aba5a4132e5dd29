"""Power-of-two scales: the invariants of the rewritten file, and that it still computes the same."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.golden import faithfulness, read_parity
from agent.runtime import installed, load, predict
from optimizer.flatfile import Flatfile, FlatfileError
from optimizer.macs import of_tflite
from optimizer.pow2 import SATURATION, Pow2Error, check_scales, nearest_scale, rewrite, scales_of
from tests import builders

BUILDS: list[Callable[[], bytes]] = [builders.classifier, lambda: builders.dscnn(per_tensor=True)]


def is_power_of_two(scale: float) -> bool:
    return math.frexp(scale)[0] == 0.5


@given(st.floats(1e-6, 1e6))
def test_the_nearest_scale_is_a_power_of_two_that_neither_wastes_a_bit_nor_saturates_much(largest: float) -> None:
    scale = nearest_scale(largest)
    assert is_power_of_two(scale)
    assert largest <= 127 * scale * SATURATION * (1 + 1e-9)
    assert largest > 127 * scale * SATURATION / 2 * (1 - 1e-9)


@pytest.mark.parametrize("build", BUILDS)
def test_every_scale_is_a_power_of_two_and_activations_are_symmetric(build: Callable[[], bytes]) -> None:
    file = Flatfile(rewrite(build()))
    fixed = {op.outputs[0] for op in file.operators() if op.name == "SOFTMAX"}
    quantized = [index for index in range(len(file.graph.tensors)) if file.scales(index)]
    assert quantized
    for index in quantized:
        assert all(map(is_power_of_two, file.scales(index)))
        assert file.zero_point(index) == (-128 if index in fixed else 0)


@pytest.mark.parametrize("build", BUILDS)
def test_a_bias_has_the_scale_of_its_input_times_its_weights(build: Callable[[], bytes]) -> None:
    file = Flatfile(rewrite(build()))
    weighted = [op for op in file.operators() if len(op.inputs) == 3]
    assert weighted
    for op in weighted:
        x, kernel, bias = (file.scales(index)[0] for index in op.inputs)
        assert bias == x * kernel


@pytest.mark.parametrize("build", BUILDS)
def test_the_rewritten_model_agrees_with_the_one_it_came_from(build: Callable[[], bytes]) -> None:
    content = build()
    parity = read_parity(builders.golden_for(content)[0])
    found = faithfulness(parity.outputs, predict(load(rewrite(content), runtimes=installed()), parity.inputs))
    assert found.agreement >= 0.9
    assert found.sqnr_db > 15


def test_rewriting_keeps_operators_size_and_names() -> None:
    content = builders.dscnn(per_tensor=True)
    before, after = load(content, runtimes=installed()), load(rewrite(content), runtimes=installed())
    assert after.operators == before.operators
    assert after.delegated == before.delegated
    assert [spec.name for spec in after.inputs] == [spec.name for spec in before.inputs]
    assert of_tflite(rewrite(content)) == of_tflite(content)
    assert len(rewrite(content)) <= len(content) * 1.05


def test_rewriting_twice_changes_nothing_more() -> None:
    once = rewrite(builders.dscnn(per_tensor=True))
    file, again = Flatfile(once), Flatfile(rewrite(once))
    activations = [index for index in range(len(file.graph.tensors)) if file.constant(index) is None]
    assert [file.scales(index) for index in activations] == [again.scales(index) for index in activations]


def test_a_model_per_channel_or_with_a_strange_operator_is_refused_by_name() -> None:
    with pytest.raises(Pow2Error, match="per channel"):
        rewrite(builders.dscnn())
    with pytest.raises(Pow2Error, match="LeptaUnknown"):
        rewrite(builders.custom_operator())
    with pytest.raises(FlatfileError, match=r"not a \.tflite file"):
        rewrite(b"no model at all")


def test_parameters_and_macs_of_known_networks_are_right() -> None:
    assert of_tflite(builders.classifier()) == (16 * 4 + 4, 16 * 4)
    # 2.66 M MACs: MLPerf Tiny's DS-CNN.
    assert of_tflite(builders.dscnn()).macs == 2_656_768
    # 300 M MACs: table 4 of the MobileNetV2 paper.
    assert of_tflite(builders.mobilenet_v2()).macs == pytest.approx(300e6, rel=0.01)


@pytest.mark.parametrize("build", BUILDS)
def test_the_check_accepts_what_was_rewritten_and_names_what_was_not(build: Callable[[], bytes]) -> None:
    rewritten = rewrite(build())
    check_scales(rewritten)
    assert all(tensor.power_of_two and tensor.symmetric for tensor in scales_of(rewritten))
    with pytest.raises(Pow2Error, match="tensors have no power-of-two scale"):
        check_scales(build())
    file = Flatfile(rewritten)
    moved = next(op.outputs[0] for op in file.operators() if op.name in ("CONV_2D", "FULLY_CONNECTED"))
    file.set_scale(moved, file.scales(moved)[0], 3)
    with pytest.raises(Pow2Error, match="1 tensors have no power-of-two scale"):
        check_scales(file.pack())
