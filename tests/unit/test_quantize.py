"""What is asked of quantization comes out: schemes, interfaces, names, sources; or an error says why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from agent.runtime import predict
from optimizer.data import Array
from optimizer.flatfile import Flatfile
from optimizer.pow2 import check_scales, rewrite
from optimizer.quantize import made_from, quantize, quantize_source
from optimizer.quantize_guard import check, found_in
from optimizer.quantize_options import ConversionError, Options, options_from
from optimizer.quantize_saved_model import quantize_saved_model
from optimizer.sources import SourceError
from tests.quantized import INPUTS, OUTPUTS, float_answers, forked, opened, rows_of, sqnr_db

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def model() -> Any:
    return forked()


@pytest.fixture(scope="module")
def rows(model: Any) -> dict[str, Array]:
    return rows_of(model)


# Scheme, interface asked for, what the artifact holds outside, least SQNR in dB, largest share of the float weights.
CASES = [
    ("int8", ("int8", "int8"), ("int8", "int8"), 30, 0.3),
    ("int8", ("uint8", "float32"), ("uint8", "float32"), 30, 0.3),
    ("int8", ("float32", "int8"), ("float32", "int8"), 30, 0.3),
    ("int16x8", ("int16", "int16"), ("int16", "int16"), 35, 0.3),
    ("int16x8", ("int16", "float32"), ("int16", "float32"), 35, 0.3),
    ("int16x8", ("int8", "int8"), ("int16", "int16"), 35, 0.3),
    ("float16", ("int8", "int8"), ("float32", "float32"), 60, 0.51),
    ("dynamic", ("float32", "float32"), ("float32", "float32"), 35, 0.7),
]


@pytest.mark.parametrize(("scheme", "asked", "ports", "least", "share"), CASES)
def test_every_scheme_answers_alike_with_smaller_weights_and_the_models_names_in_their_order(
    model: Any,
    rows: dict[str, Array],
    scheme: str,
    asked: tuple[str, str],
    ports: tuple[str, str],
    least: float,
    share: float,
) -> None:
    content = quantize(model, rows, interface=asked, scheme=scheme)
    artifact = opened(content)
    assert [(spec.name, spec.dtype) for spec in artifact.inputs] == [(name, ports[0]) for name in INPUTS]
    assert [(spec.name, spec.dtype) for spec in artifact.outputs] == [(name, ports[1]) for name in OUTPUTS]
    assert sqnr_db(float_answers(model, rows), content, rows) >= least
    found = found_in(Flatfile(content))
    assert found.weight_bytes <= share * found.float_weight_bytes
    assert scheme not in ("int8", "int16x8") or not found.float_operators


def test_dense_layers_alone_can_share_one_scale(model: Any, rows: dict[str, Array]) -> None:
    wanted: dict[str, dict[str, Any]] = {"dense": {"dense": "per-tensor"}, "all": {"weights": "per-tensor"}, "none": {}}
    scales = {
        name: {
            op.name: len(file.scales(op.inputs[1]))
            for op in file.operators()
            if op.name in ("CONV_2D", "FULLY_CONNECTED")
        }
        for name, options in wanted.items()
        for file in [Flatfile(quantize(model, rows, **options))]
    }
    assert scales["dense"] == {"CONV_2D": 8, "FULLY_CONNECTED": 1}
    assert scales["all"] == {"CONV_2D": 1, "FULLY_CONNECTED": 1}
    assert scales["none"]["CONV_2D"] == 8
    assert scales["none"]["FULLY_CONNECTED"] > 1


@pytest.mark.parametrize("ports", ["int8", "float32"])
@pytest.mark.parametrize("kept", [("depth",), ("conv", "depth"), ("alpha", "zulu/softmax")])
def test_the_operators_named_stay_float_and_no_others(
    model: Any, rows: dict[str, Array], kept: tuple[str, ...], ports: str
) -> None:
    options = options_from({"keep_float": kept, "input": ports, "output": ports})
    made = made_from(model, rows, options)
    assert len(check(made.content, options, made.kept).float_operators) == len(kept)
    assert sqnr_db(float_answers(model, rows), made.content, rows) >= 30


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"scheme": "int4"}, "settings of quantize: Invalid enum value 'int4'"),
        ({"input": "int16"}, "an int16 interface goes with scheme int16x8"),
        ({"scheme": "float16", "keep_float": ["conv"]}, "keep_float is for scheme int8"),
        ({"mixed": False, "keep_float": ["conv"]}, "hardware has no float"),
        ({"keep_float": ["conv9"]}, "no operator is called 'conv9'; there are "),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(
    model: Any, rows: dict[str, Array], settings: dict[str, Any], part: str
) -> None:
    with pytest.raises(ConversionError) as caught:
        made_from(model, rows, options_from(settings))
    assert part in str(caught.value)


def test_a_conversion_that_changed_nothing_is_an_error(rows: dict[str, Array]) -> None:
    x = keras.Input((4,), name="x")
    tiny = keras.Model(x, keras.layers.Dense(3, name="y")(x))
    with pytest.raises(ConversionError, match="dynamic left the model as it was: it has no int8 weights; its weights"):
        quantize(tiny, rows_of(tiny), scheme="dynamic")


def test_a_float_graph_passes_for_no_scheme(model: Any, rows: dict[str, Array]) -> None:
    floating = made_from(model, rows, Options()).floating
    assert floating is not None
    for scheme in ("int8", "int16x8", "float16", "dynamic"):
        with pytest.raises(ConversionError, match="left the model as it was"):
            check(floating, options_from({"scheme": scheme}))


def test_weighted_operators_that_stayed_float_without_being_asked_are_named(model: Any, rows: dict[str, Array]) -> None:
    made = made_from(model, rows, Options(keep_float=("conv",)))
    with pytest.raises(ConversionError, match=r"1 operators stayed float: conv \(CONV_2D\)"):
        check(made.content, Options())


def test_an_operator_without_an_integer_form_stays_float_only_where_the_hardware_has_float() -> None:
    x = keras.Input((40,), name="x")
    hidden = keras.layers.Dense(40, name="hidden")(x)
    model = keras.Model(x, keras.layers.Dense(3, name="y")(keras.ops.sin(hidden)))
    rows = rows_of(model)
    found = found_in(Flatfile(quantize(model, rows)))
    assert len(found.float_operators) == 1
    with pytest.raises(ConversionError, match=r"SIN.*hardware has no float"):
        quantize(model, rows, mixed=False)


def test_several_inputs_and_a_transposed_convolution_take_power_of_two_scales(
    model: Any, rows: dict[str, Array]
) -> None:
    x = keras.Input((4, 4, 3), name="x")
    grown = keras.Model(x, keras.layers.Conv2DTranspose(4, 3, strides=2, bias_initializer="ones", name="y")(x))
    for one, given in ((model, rows), (grown, rows_of(grown))):
        rewritten = rewrite(quantize(one, given, weights="per-tensor", mixed=False))
        check_scales(rewritten)
        assert sqnr_db(float_answers(one, given), rewritten, given) >= 18


def test_the_runtime_quantizes_16_bits_saturates_and_gives_real_numbers(model: Any, rows: dict[str, Array]) -> None:
    artifact = opened(quantize(model, rows, scheme="int16x8", interface=("int16", "int16")))
    stored = {}
    for spec in artifact.inputs:
        assert spec.scale
        limits = np.iinfo(np.int16)
        steps = np.round(rows[spec.name] / np.float32(spec.scale)) + (spec.zero_point or 0)
        stored[spec.name] = np.clip(steps, limits.min, limits.max).astype(np.int16)
    answers, again = predict(artifact, rows), predict(artifact, stored)
    huge = predict(artifact, {name: np.full_like(array, 1e30) for name, array in rows.items()})
    for name, array in answers.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, again[name])
        assert np.isfinite(huge[name]).all()


def test_the_runtime_passes_floats_as_they_are(model: Any, rows: dict[str, Array]) -> None:
    artifact = opened(quantize(model, rows, scheme="float16"))
    assert all(spec.scale is None for spec in (*artifact.inputs, *artifact.outputs))
    answers, wide = predict(artifact, rows), predict(artifact, {k: v.astype(np.float64) for k, v in rows.items()})
    for name, array in answers.items():
        np.testing.assert_array_equal(array, wide[name])


def _data(path: Path, rows: dict[str, Array]) -> Path:
    arrays: dict[str, Any] = {
        f"{split}/{name}": array for split in ("calibration", "validation", "test") for name, array in rows.items()
    }
    np.savez(path, **arrays)
    return path


def test_the_pass_takes_a_keras_file_with_nothing_but_defaults_and_keeps_the_float_graph(
    model: Any, rows: dict[str, Array], tmp_path: Path
) -> None:
    model.save(tmp_path / "model.keras")
    inputs = {"source": tmp_path / "model.keras", "data": _data(tmp_path / "data.npz", rows)}
    settings = {"weights": "per-channel", "input": "int8", "output": "int8"}
    told = quantize_source(inputs, settings, tmp_path, lambda *_: None)
    content = (tmp_path / "model.tflite").read_bytes()
    assert told["bytes"] == len(content)
    assert told["float_operators"] == []
    assert sqnr_db(float_answers(model, rows), (tmp_path / "float.tflite").read_bytes(), rows) > 90
    assert sqnr_db(float_answers(model, rows), content, rows) >= 30


def test_a_saved_model_is_converted_by_its_serving_signature(
    model: Any, rows: dict[str, Array], tmp_path: Path
) -> None:
    model.export(tmp_path / "saved", verbose=False)
    inputs = {"source": tmp_path / "saved", "data": _data(tmp_path / "data.npz", rows)}
    told = quantize_saved_model(inputs, {"keep_float": ["forked_1/depth_1"]}, tmp_path, lambda *_: None)
    assert len(told["float_operators"]) == 1
    content = (tmp_path / "model.tflite").read_bytes()
    exact = dict(zip(("output_0", "output_1"), float_answers(model, rows).values(), strict=True))
    assert sorted(spec.name for spec in opened(content).inputs) == sorted(INPUTS)
    assert [spec.name for spec in opened(content).outputs] == list(exact)
    assert sqnr_db(exact, content, rows) >= 30


def test_names_of_a_signature_are_the_artifacts(tmp_path: Path) -> None:
    class Sums(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.kernel = tf.Variable(np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32))

        @tf.function(input_signature=[tf.TensorSpec((None, 6), name=name) for name in INPUTS])  # type: ignore[untyped-decorator]
        def serve(self, z: Any, a: Any) -> Any:
            return {"total": (z + a) @ self.kernel, "first": z @ self.kernel}

    module = Sums()
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures={"serving_default": module.serve})
    random = np.random.default_rng(1)
    rows = {name: random.normal(size=(16, 6)).astype(np.float32) for name in ("zebra", "apple")}
    inputs = {"source": tmp_path / "saved", "data": _data(tmp_path / "data.npz", rows)}
    quantize_saved_model(inputs, {}, tmp_path, lambda *_: None)
    artifact = opened((tmp_path / "model.tflite").read_bytes())
    assert {spec.name for spec in artifact.inputs} == {"zebra", "apple"}
    assert {spec.name for spec in artifact.outputs} == {"total", "first"}


def test_a_saved_model_without_a_serving_signature_or_with_open_sizes_is_refused(tmp_path: Path) -> None:
    class Doubled(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec((None, None), name="x")])  # type: ignore[untyped-decorator]
        def serve(self, x: Any) -> Any:
            return {"y": 2 * x}

    module = Doubled()
    tf.saved_model.save(module, str(tmp_path / "open"), signatures={"serving_default": module.serve})
    tf.saved_model.save(tf.Module(), str(tmp_path / "none"))
    for name, part in (("open", "every other size must be fixed"), ("none", "no signature serving_default")):
        with pytest.raises(SourceError, match=part):
            quantize_saved_model({"source": tmp_path / name}, {}, tmp_path, lambda *_: None)
