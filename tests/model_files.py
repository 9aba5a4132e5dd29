"""Model files of every kind made by hand: bytes that say what a test wants them to say."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.flatgraph import Graph

Part = tuple[int, bytes | str | int]


def message(*parts: Part) -> bytes:
    """A protocol-buffer message of these fields."""
    return b"".join(_field(number, value) for number, value in parts)


def _field(number: int, value: bytes | str | int) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def node(op: str, *inputs: str, name: str = "", calls: str = "") -> bytes:
    """A NodeDef; `calls` names a function."""
    parts: list[Part] = [(1, name or op), (2, op), *((3, one) for one in inputs)]
    if calls:
        parts.append((5, message((1, "f"), (2, message((10, message((1, calls))))))))
    return message(*parts)


def function(name: str, *nodes: bytes) -> bytes:
    return message((1, message((1, name))), *((3, one) for one in nodes))


def graph(*nodes: bytes, functions: tuple[bytes, ...] = ()) -> bytes:
    return message(*((1, one) for one in nodes), (2, message(*((1, one) for one in functions))))


def saved_model(folder: Path, content: bytes, *more: Part) -> Path:
    """A SavedModel of TensorFlow 2 with that graph; `more` are fields of its meta graph."""
    folder.mkdir(parents=True, exist_ok=True)
    meta = message((2, content), (7, b""), *more)
    (folder / "saved_model.pb").write_bytes(message((1, 1), (2, meta)))
    (folder / "variables").mkdir(exist_ok=True)
    (folder / "variables" / "variables.index").write_bytes(b"")
    return folder


def onnx(path: Path, *parts: Part, nodes: tuple[bytes, ...] = (), tensors: tuple[bytes, ...] = ()) -> Path:
    inner = message(*((1, one) for one in nodes), (2, "g"), *((5, one) for one in tensors))
    path.write_bytes(message((1, 9), (7, inner), (8, message((1, ""), (2, 17))), *parts))
    return path


WEIGHT = {"path_name": "weight_0", "is_param": True, "use_pickle": False}


def program(*targets: str, **more: Any) -> dict[str, Any]:
    """What models/model.json of a .pt2 file says."""
    return {"graph_module": {"graph": {"nodes": [{"target": target} for target in targets]}}, **more}


def pt2(path: Path, inner: dict[str, Any], weight: dict[str, Any] | None = None, more: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/archive_format", "pt2")
        archive.writestr("m/archive_version", "0")
        archive.writestr("m/models/model.json", json.dumps(inner))
        archive.writestr("m/data/weights/weight_0", b"1234")
        archive.writestr("m/data/weights/model_weights_config.json", json.dumps({"config": {"w": weight or WEIGHT}}))
        archive.writestr("m/data/sample_inputs/model.pt", b"a pickle that nobody reads")
        if more:
            archive.writestr(f"m/{more}", b"more")
    return path


def float_graph(units: int = 64, rows: int = 1, dtype: str = "float32") -> tuple[Graph, dict[str, Any], dict[str, Any]]:
    """x (rows, 32) -> dense -> dense of 4, with float weights of that dtype: the graph, its inputs and outputs."""
    made = Graph(1)
    x = made.tensor("serving_default_x:0", (rows, 32), "float32")
    hidden = _dense(made, "hidden", x, units, dtype)
    return made, {"x": x}, {"scores": _dense(made, "scores", hidden, 4, dtype)}


def float_tflite(units: int = 64, rows: int = 1, dtype: str = "float32") -> bytes:
    made, inputs, outputs = float_graph(units, rows, dtype)
    return made.finish(inputs, outputs)


def _dense(made: Graph, name: str, x: Any, units: int, dtype: str) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    weights = (made.random.standard_normal((units, x.shape[1])) / np.sqrt(x.shape[1])).astype(dtype)
    kernel = made.constant(f"{name}/kernel", weights)
    if dtype == "float16":
        wide = made.tensor(f"{name}/wide", weights.shape, "float32")
        made.operator("DEQUANTIZE", [kernel], [wide.at], schema.DequantizeOptionsT())
        kernel = wide.at
    bias = made.constant(f"{name}/bias", np.zeros(units, np.float32))
    out = made.tensor(name, (x.shape[0], units), "float32")
    options = schema.FullyConnectedOptionsT()
    made.operator("FULLY_CONNECTED", [x.at, kernel, bias], [out.at], options)
    return out
