"""The worker's interpreter: what it computes, what it refuses, and that no damaged file brings it down."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.contract.golden import accuracy, faithfulness, read_acceptance, read_parity
from agent.runtime import Model, ModelError, RuntimeUnavailable, Slowed, installed, load, predict
from tests import builders
from tests.flatgraph import Array


def loaded(content: bytes) -> Model:
    return load(content, runtimes=installed())


@pytest.fixture(scope="module", params=installed())
def model(request: pytest.FixtureRequest) -> Model:
    return load(builders.classifier(), runtimes=[request.param])


def test_the_model_tells_its_clean_names_shapes_scales_and_operators(model: Model) -> None:
    (x,), (scores,) = model.inputs, model.outputs
    assert (x.name, x.dtype, x.shape) == ("x", "int8", (16,))
    assert (scores.name, scores.shape) == ("scores", (4,))
    assert x.scale == pytest.approx(8 / 255)
    assert x.zero_point == 0
    assert model.operators == ("FULLY_CONNECTED",)


def test_the_runtime_says_what_it_is_and_whether_a_delegate_computes(model: Model) -> None:
    assert model.family in installed()
    assert model.runtime.startswith(f"{model.family} ")
    assert model.delegated == (model.family == "ai-edge-litert")
    assert model.runtime.endswith("XNNPACK" if model.delegated else "no delegate")


def test_real_numbers_come_back_as_real_numbers_close_to_the_float_result() -> None:
    weights = np.random.default_rng(0).normal(size=(4, 16))
    model = loaded(builders.dense(weights, np.ones(4)))
    x = np.random.default_rng(1).uniform(-2, 2, (50, 16)).astype(np.float32)
    scores = predict(model, {"x": x})["scores"]
    assert scores.dtype == np.float32
    assert np.abs(scores - (x @ weights.T + 1)).max() < 0.5


def test_input_in_the_stored_dtype_passes_as_it_is(model: Model) -> None:
    (x,) = model.inputs
    real = builders.random_inputs(model, 8)
    assert x.scale
    stored = {"x": np.round(real["x"] / np.float32(x.scale)).astype(np.int8)}
    np.testing.assert_array_equal(predict(model, stored)["scores"], predict(model, real)["scores"])


def test_values_beyond_the_models_range_saturate(model: Model) -> None:
    huge = predict(model, {"x": np.full((1, 16), 1e30, np.float32)})["scores"]
    np.testing.assert_array_equal(huge, predict(model, {"x": np.full((1, 16), 4, np.float32)})["scores"])


@settings(deadline=None)
@given(st.integers(0, 64), st.data())
def test_rows_are_computed_independently_in_any_number_and_split(rows: int, data: st.DataObject) -> None:
    model = loaded(builders.classifier())
    x = builders.random_inputs(model, rows)["x"]
    cut = data.draw(st.integers(0, rows))
    parts = [predict(model, {"x": part})["scores"] for part in (x[:cut], x[cut:])]
    np.testing.assert_array_equal(predict(model, {"x": x})["scores"], np.concatenate(parts))


def test_several_named_inputs_reach_their_own_tensors() -> None:
    model = loaded(builders.two_inputs())
    assert [spec.name for spec in model.inputs] == ["a", "b"]
    ones, twos = np.ones((2, 3), np.float32), np.full((2, 3), 2, np.float32)
    np.testing.assert_array_equal(predict(model, {"b": twos, "a": ones})["sum"], ones + twos)


@pytest.mark.parametrize(
    ("inputs", "part"),
    [
        ({"y": np.zeros((1, 16), np.float32)}, "inputs are y; this model wants x"),
        ({}, "inputs are none; this model wants x"),
        ({"x": np.zeros((1, 17), np.float32)}, "has shape [1, 17]; this model wants [rows, 16]"),
        ({"x": np.zeros(16, np.float32)}, "has shape [16]"),
        ({"x": np.array(3.0)}, "has shape []"),
        ({"x": np.full((1, 16), "a")}, "has dtype <U1; numbers are wanted"),
        ({"x": np.zeros((1, 16), complex)}, "has dtype complex128"),
        ({"x": np.full((1, 16), np.nan, np.float32)}, "NaN"),
    ],
)
def test_inputs_that_do_not_fit_are_the_users_fault(model: Model, inputs: dict[str, Array], part: str) -> None:
    with pytest.raises(ModelError) as caught:
        predict(model, inputs)
    assert part in str(caught.value)
    assert caught.value.who == "user"


def test_inputs_with_different_numbers_of_rows_are_refused() -> None:
    model = loaded(builders.two_inputs())
    with pytest.raises(ModelError, match="disagree on the number of rows"):
        predict(model, {"a": np.zeros((1, 3), np.float32), "b": np.zeros((2, 3), np.float32)})


@pytest.mark.parametrize("family", installed())
def test_every_installed_runtime_answers_the_same_question_alike(family: str) -> None:
    parity = read_parity(builders.golden_for(builders.dscnn())[0])
    outputs = predict(load(builders.dscnn(), runtimes=[family]), parity.inputs)
    assert faithfulness(parity.outputs, outputs).agreement >= 0.9


def test_an_operator_that_no_runtime_knows_is_the_devices_fault() -> None:
    with pytest.raises(ModelError, match="cannot load this model") as caught:
        loaded(builders.custom_operator())
    assert caught.value.who == "device"


@pytest.mark.parametrize("content", [b"", b"no model", b"\0" * 1000])
def test_bytes_that_are_no_model_are_refused(content: bytes) -> None:
    with pytest.raises(ModelError, match="cannot load this model"):
        loaded(content)


def test_a_model_of_nan_answers_nan_so_that_the_golden_sets_can_tell() -> None:
    scores = predict(loaded(builders.nan()), {"x": np.ones((3, 16), np.float32)})["scores"]
    assert np.isnan(scores).all()
    assert accuracy(np.zeros(3, np.int64), scores) == 0.0


def test_the_first_installed_of_the_wanted_runtimes_is_taken() -> None:
    assert load(builders.classifier(), runtimes=("not-installed", *installed())).family == installed()[0]
    with pytest.raises(RuntimeUnavailable, match="none of the runtimes not-installed"):
        load(builders.classifier(), runtimes=("not-installed",))


def test_a_slowed_model_answers_the_same_later_and_says_that_it_is_simulated(model: Model) -> None:
    slowed = Slowed(model, extra_ms_per_row=5)
    inputs = builders.random_inputs(model, 4)
    started = time.monotonic()
    scores = predict(slowed, inputs)["scores"]
    assert time.monotonic() - started >= 0.02
    np.testing.assert_array_equal(scores, predict(model, inputs)["scores"])
    assert "simulated" in slowed.runtime
    assert slowed.family == model.family


def test_golden_sets_are_passed_by_their_own_model_and_failed_by_a_badly_trained_one() -> None:
    parity_bytes, acceptance_bytes = builders.golden_for(builders.classifier())
    parity, acceptance = read_parity(parity_bytes), read_acceptance(acceptance_bytes)
    good, bad = loaded(builders.classifier(variant=2)), loaded(builders.classifier(wrong=True))
    assert faithfulness(parity.outputs, predict(good, parity.inputs)).agreement >= 0.9
    assert accuracy(acceptance.labels, predict(good, acceptance.inputs)["scores"]) >= 0.9
    assert accuracy(acceptance.labels, predict(bad, acceptance.inputs)["scores"]) <= 0.5


def test_a_changed_byte_in_the_weights_changes_the_digest_of_the_manifest() -> None:
    content = builders.classifier()
    golden = builders.golden_for(content)
    manifest = builders.manifest_for(content, golden)
    changed = builders.changed_byte(content)
    assert manifest.artifact == builders.file_ref(content).digest
    assert manifest.artifact != builders.file_ref(changed).digest


@pytest.mark.parametrize("build", [builders.dscnn, builders.slow, lambda: builders.mobilenet_v2(0.35, 96)])
def test_the_larger_builders_load_and_decide(build: Callable[[], bytes]) -> None:
    model = loaded(build())
    scores = predict(model, builders.random_inputs(model, 4))["scores"]
    assert scores.max(axis=1).min() > 3 / scores.shape[1]
