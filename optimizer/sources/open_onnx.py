"""Opens an ONNX model, by onnx2torch and litert-torch. Runs in a forked child that never saw TensorFlow."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx2torch
import torch

from optimizer.passes import Inputs, Progress
from optimizer.sources.onnx_file import check_onnx
from optimizer.sources.open_tflite import keep
from optimizer.sources.open_torch import converted
from optimizer.sources.specs import SourceError, first_line


def open_onnx(inputs: Inputs, settings: dict[str, Any], out: Path, progress: Progress) -> dict[str, Any]:
    """The pass: `source`, an .onnx file, becomes a float model.tflite."""
    path = inputs["source"]
    check_onnx(path)
    progress(0.1, "loading")
    try:
        model = onnx.load(path, load_external_data=False)
        onnx.checker.check_model(model)
    except Exception as error:  # whatever ONNX makes of it
        raise SourceError(f"{path.name} cannot be loaded by onnx {onnx.__version__}: {first_line(error)}") from error
    stored = {tensor.name for tensor in model.graph.initializer}
    given = [value for value in model.graph.input if value.name not in stored]
    rows = tuple(_sample(path.name, value) for value in given)
    progress(0.3, "converting")
    try:
        program = torch.export.export(onnx2torch.convert(model).eval(), rows)
    except Exception as error:  # onnx2torch names the operator that it lacks
        raise SourceError(f"{path.name} cannot be converted by onnx2torch: {first_line(error)}") from error
    with tempfile.TemporaryDirectory() as folder:
        content = converted(path.name, program, Path(folder))
    return keep(path.name, content, out, [v.name for v in given], [v.name for v in model.graph.output])


def _sample(name: str, value: Any) -> Any:
    """Zeros of one row for an input; the first axis may have any size, by name or left out."""
    kind, shape = value.type.tensor_type.elem_type, value.type.tensor_type.shape.dim
    sizes = [int(axis.dim_value) for axis in shape]
    if not sizes or sizes[0] > 1 or 0 in sizes[1:]:
        found = [axis.dim_param or axis.dim_value for axis in shape]
        raise SourceError(f"{name}: input {value.name!r} has shape {found}; export it for one row, the rest fixed")
    return torch.from_numpy(np.zeros([1, *sizes[1:]], onnx.helper.tensor_dtype_to_np_dtype(kind)))
