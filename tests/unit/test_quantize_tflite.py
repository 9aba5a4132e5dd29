"""A float .tflite becomes an artifact without TensorFlow; what is left as it was is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.contract import golden
from agent.runtime import installed, load, predict
from optimizer.flatfile import Flatfile
from optimizer.quantize_options import ConversionError, options_from
from optimizer.quantize_tflite import quantize, quantize_tflite
from optimizer.sources import SourceError
from optimizer.sources.open_tflite import open_tflite
from tests.model_files import float_graph, float_tflite

_ROWS = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)


def silent(_: float, __: str) -> None:
    pass


def opened(folder: Path, content: bytes) -> tuple[dict[str, Any], bytes]:
    (folder / "net.tflite").write_bytes(content)
    (folder / "opened").mkdir()
    manifest = open_tflite({"source": folder / "net.tflite"}, {}, folder / "opened", silent)
    return manifest, (folder / "opened" / "model.tflite").read_bytes()


def data(folder: Path) -> Path:
    arrays: dict[str, Any] = {f"{split}/x": _ROWS for split in ("calibration", "validation", "test")}
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


@pytest.mark.parametrize(
    ("settings", "ports"),
    [
        ({}, ("int8", "int8")),
        ({"weights": "per-tensor"}, ("int8", "int8")),
        ({"input": "float32", "output": "uint8"}, ("float32", "uint8")),
        ({"input": "uint8", "output": "float32"}, ("uint8", "float32")),
        ({"scheme": "int16x8"}, ("int16", "int16")),
        ({"scheme": "float16"}, ("float32", "float32")),
        ({"scheme": "dynamic"}, ("float32", "float32")),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_scheme_and_interface_is_faithful_and_smaller(
    tmp_path: Path, settings: dict[str, Any], ports: tuple[str, str], dtype: str
) -> None:
    manifest, source = opened(tmp_path, float_tflite(dtype=dtype))
    assert manifest["kind"] == "tflite"
    assert manifest["inputs"] == [{"name": "x", "dtype": "float32", "shape": [32]}]
    assert manifest["classes"] == 4
    inputs = {"source": tmp_path / "opened" / "model.tflite", "data": data(tmp_path)}
    found = quantize_tflite(inputs, settings, tmp_path, silent)
    content = (tmp_path / "model.tflite").read_bytes()
    assert found["bytes"] == len(content) < len(source)
    model = load(content, runtimes=installed(), threads=1)
    assert (model.inputs[0].dtype, model.outputs[0].dtype) == ports == (found["input"], found["output"])
    assert [spec.name for spec in (*model.inputs, *model.outputs)] == ["x", "scores"]
    expected = predict(load(source, runtimes=installed(), threads=1), {"x": _ROWS})
    assert golden.faithfulness(expected, predict(model, {"x": _ROWS})).sqnr_db > 25


def test_operators_stay_float_by_name(tmp_path: Path) -> None:
    _, source = opened(tmp_path, float_tflite())
    options = options_from({"keep_float": ["hidden"]})
    floats = [op.name for op in _floats(quantize(source, {"x": _ROWS}, options))]
    assert floats == ["FULLY_CONNECTED"]
    with pytest.raises(ConversionError, match=r"no operator is called 'nope'; there are hidden, scores"):
        quantize(source, {"x": _ROWS}, options_from({"keep_float": ["nope"]}))


@pytest.mark.parametrize("scheme", ["int8", "dynamic", "float16"])
def test_a_model_that_the_library_leaves_as_it_was_is_an_error(tmp_path: Path, scheme: str) -> None:
    (tmp_path / "half.tflite").write_bytes(float_tflite(dtype="float16"))
    inputs = {"source": tmp_path / "half.tflite", "data": data(tmp_path)}
    with pytest.raises(ConversionError):
        quantize_tflite(inputs, {"scheme": scheme}, tmp_path, silent)


def test_a_model_without_a_signature_gets_one_with_clean_names(tmp_path: Path) -> None:
    file = Flatfile(float_tflite())
    file.model.signatureDefs = None
    manifest, source = opened(tmp_path, file.pack())
    assert [port["name"] for port in manifest["inputs"] + manifest["outputs"]] == ["x", "scores"]
    assert _floats(quantize(source, {"x": _ROWS}, options_from({}))) == []


def test_several_inputs_and_outputs_keep_their_names(tmp_path: Path) -> None:
    made, inputs, outputs = float_graph()
    second, more_in, more_out = made, *_another(made)
    manifest, source = opened(tmp_path, second.finish({**inputs, **more_in}, {**outputs, **more_out}))
    assert [port["name"] for port in manifest["inputs"]] == ["x", "other"]
    assert [port["name"] for port in manifest["outputs"]] == ["scores", "sum"]
    assert manifest["classes"] == 0
    content = quantize(source, {"x": _ROWS, "other": _ROWS[:, :4]}, options_from({}))
    model = load(content, runtimes=installed(), threads=1)
    assert {spec.name: spec.shape for spec in model.inputs} == {"x": (32,), "other": (4,)}
    assert {spec.name for spec in model.outputs} == {"scores", "sum"}


def test_a_model_for_several_rows_at_once_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"convert it for one row"):
        opened(tmp_path, float_tflite(rows=3))


def _another(made: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    from ai_edge_litert import schema_py_generated as schema

    other = made.tensor("other", (1, 4), "float32")
    total = made.tensor("sum", (1, 4), "float32")
    made.operator("ADD", [other.at, other.at], [total.at], schema.AddOptionsT())
    return {"other": other}, {"sum": total}


def _floats(content: bytes) -> list[Any]:
    file = Flatfile(content)
    return [
        op
        for op in file.operators()
        if op.name not in ("QUANTIZE", "DEQUANTIZE") and any(file.tensor(at).type == 0 for at in op.outputs)
    ]
