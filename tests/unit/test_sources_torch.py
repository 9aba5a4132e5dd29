"""Programs of PyTorch, and ONNX models, become float .tflite files that answer alike. Needs the extras."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.runtime import installed, load, predict
from optimizer.sources import SourceError, check_static

# PyTorch's, JAX' and ONNX' own.
pytestmark = pytest.mark.filterwarnings("ignore")


def silent(_: float, __: str) -> None:
    pass


def answer(folder: Path, rows: dict[str, Any]) -> dict[str, Any]:
    return predict(load((folder / "model.tflite").read_bytes(), runtimes=installed(), threads=1), rows)


def net() -> Any:
    import torch

    class Two(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.flat = torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Linear(4 * 8 * 8, 3)

        def forward(self, image: Any, gain: Any) -> Any:
            found = self.flat(torch.relu(self.conv(image)).flatten(1))
            return torch.softmax(found, 1), found.sum(1, keepdim=True) * gain

    torch.manual_seed(0)
    return Two().eval()


@pytest.mark.torch
def test_a_program_with_several_inputs_and_outputs_answers_alike(tmp_path: Path) -> None:
    import torch

    from optimizer.sources.open_torch import open_torch

    model, given = net(), (torch.randn(1, 1, 8, 8), torch.randn(1, 1))
    torch.export.save(torch.export.export(model, given), tmp_path / "m.pt2")
    source = (tmp_path / "m.pt2").rename(tmp_path / "program")
    assert check_static(source) == "torch"
    found = open_torch({"source": source}, {}, tmp_path, silent)
    assert found["kind"] == "tflite"
    assert [(port["name"], port["shape"]) for port in found["inputs"]] == [("image", [1, 8, 8]), ("gain", [1])]
    expected = model(*given)
    answers = answer(tmp_path, {"image": given[0].numpy(), "gain": given[1].numpy()})
    for port, wanted in zip(found["outputs"], expected, strict=True):
        np.testing.assert_allclose(answers[port["name"]], wanted.detach().numpy(), atol=1e-5)


@pytest.mark.torch
def test_a_pickle_in_a_program_never_runs(tmp_path: Path) -> None:
    import torch

    from optimizer.sources.open_torch import open_torch

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    given = (torch.randn(1, 1, 8, 8), torch.randn(1, 1))
    torch.export.save(torch.export.export(net(), given), tmp_path / "m.pt2")
    with zipfile.ZipFile(tmp_path / "m.pt2") as whole, zipfile.ZipFile(tmp_path / "evil.pt2", "w") as evil:
        for entry in whole.infolist():
            sample = entry.filename.endswith("sample_inputs/model.pt")
            evil.writestr(entry.filename, pickle.dumps(Evil()) if sample else whole.read(entry))
    open_torch({"source": tmp_path / "evil.pt2"}, {}, tmp_path, silent)
    assert not (tmp_path / "ran").exists()


def onnx_model(path: Path, op: str = "Relu") -> Any:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    stored = {
        "w": random.standard_normal((4, 1, 3, 3)).astype(np.float32),
        "b": np.zeros(4, np.float32),
        "d": random.standard_normal((256, 3)).astype(np.float32) / 16,
        "e": np.zeros(3, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["c"], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        helper.make_node(op, ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "d", "e"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
    ]
    given = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["rows", 1, 8, 8])]
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 3]) for name in ("scores", "logits")]
    tensors = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "g", given, made, tensors), opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )
    onnx.save(model, path)
    return model


@pytest.mark.onnx
def test_an_onnx_model_with_several_outputs_answers_alike(tmp_path: Path) -> None:
    from onnx.reference import ReferenceEvaluator

    from optimizer.sources.open_onnx import open_onnx

    model = onnx_model(tmp_path / "m.onnx")
    assert check_static(tmp_path / "m.onnx") == "onnx"
    found = open_onnx({"source": tmp_path / "m.onnx"}, {}, tmp_path, silent)
    assert found["inputs"] == [{"name": "image", "dtype": "float32", "shape": [1, 8, 8]}]
    assert [port["name"] for port in found["outputs"]] == ["scores", "logits"]
    row = np.random.default_rng(1).standard_normal((1, 1, 8, 8)).astype(np.float32)
    answers = answer(tmp_path, {"image": row})
    for name, wanted in zip(("scores", "logits"), ReferenceEvaluator(model).run(None, {"image": row}), strict=True):
        np.testing.assert_allclose(answers[name], wanted, atol=1e-4)


@pytest.mark.onnx
def test_an_operator_that_cannot_be_converted_is_named(tmp_path: Path) -> None:
    from optimizer.sources.open_onnx import open_onnx

    onnx_model(tmp_path / "m.onnx", "Mish")
    with pytest.raises(SourceError, match="Mish"):
        open_onnx({"source": tmp_path / "m.onnx"}, {}, tmp_path, silent)
