"""Reads and writes .tflite flatbuffers as objects, and knows what Lepta needs of them. No TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

Array = npt.NDArray[Any]

_IDENTIFIER = b"TFL3"
_DTYPES = {
    schema.TensorType.FLOAT32: "<f4",
    schema.TensorType.FLOAT16: "<f2",
    schema.TensorType.INT8: "i1",
    schema.TensorType.UINT8: "u1",
    schema.TensorType.INT16: "<i2",
    schema.TensorType.INT32: "<i4",
    schema.TensorType.INT64: "<i8",
    schema.TensorType.BOOL: "?",
}
_QUANTIZED = (
    schema.TensorType.INT2,
    schema.TensorType.INT4,
    schema.TensorType.INT8,
    schema.TensorType.UINT8,
    schema.TensorType.INT16,
)
_NAMES = {
    code: name
    for name, code in vars(schema.BuiltinOperator).items()
    if isinstance(code, int) and not name.startswith("_")
}


class FlatfileError(ValueError):
    """Bytes that are no .tflite file, or not of the kind that Lepta makes."""


class Operator(NamedTuple):
    """An operator with its name and tensor indices (-1: an optional input that is left out)."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class Flatfile:
    """A .tflite model with one subgraph, open for changes."""

    def __init__(self, content: bytes) -> None:
        if content[4:8] != _IDENTIFIER:
            raise FlatfileError("not a .tflite file")
        self.model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(content), 0))
        if len(self.model.subgraphs) != 1:
            raise FlatfileError(f"{len(self.model.subgraphs)} subgraphs; Lepta handles models with one")
        self.graph = self.model.subgraphs[0]

    def pack(self) -> bytes:
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(self.model.Pack(builder), _IDENTIFIER)
        return bytes(builder.Output())

    def operators(self) -> Iterator[Operator]:
        for op in self.graph.operators:
            code = self.model.operatorCodes[op.opcodeIndex]
            builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
            name = _NAMES[builtin] if builtin != schema.BuiltinOperator.CUSTOM else as_text(code.customCode)
            yield Operator(name, _indices(op.inputs), _indices(op.outputs))

    def is_custom(self, op: Operator) -> bool:
        """Whether no interpreter knows it without an addition."""
        return op.name not in _NAMES.values()

    def tensor(self, index: int) -> Any:
        return self.graph.tensors[index]

    def shape(self, index: int) -> tuple[int, ...]:
        return _indices(self.tensor(index).shape)

    def constant(self, index: int) -> Array | None:
        """The stored values of a constant tensor; None for an activation."""
        tensor = self.tensor(index)
        data = self.model.buffers[tensor.buffer].data
        if data is None or len(data) == 0 or tensor.type not in _DTYPES:
            return None
        return np.frombuffer(bytes(data), _DTYPES[tensor.type]).reshape(self.shape(index))

    def set_constant(self, index: int, values: Array) -> None:
        """Store other values; in a buffer of its own where tensors of different scales share one."""
        tensor = self.tensor(index)
        if sum(other.buffer == tensor.buffer for other in self.graph.tensors) > 1:
            self.model.buffers.append(schema.BufferT())
            tensor.buffer = len(self.model.buffers) - 1
        self.model.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), np.uint8)

    def scales(self, index: int) -> list[float]:
        quantization = self.tensor(index).quantization
        return [] if quantization is None or quantization.scale is None else [float(s) for s in quantization.scale]

    def zero_point(self, index: int) -> int:
        points = self.tensor(index).quantization.zeroPoint
        return 0 if points is None or len(points) == 0 else int(points[0])

    def set_scale(self, index: int, scale: float, zero_point: int) -> None:
        quantization = self.tensor(index).quantization
        quantization.scale, quantization.zeroPoint = [scale], [zero_point]
        quantization.min = quantization.max = None

    def rename_outputs(self, names: list[str]) -> None:
        """Call the signature's outputs by these names, in the converter's order `output_0`, `output_1`, ..."""
        for signature in self.model.signatureDefs or []:
            for entry in signature.outputs:
                prefix, _, number = as_text(entry.name).rpartition("_")
                if prefix == "output" and number.isdigit() and int(number) < len(names):
                    entry.name = names[int(number)]

    def put_in_order(self, inputs: list[str], outputs: list[str]) -> None:
        """Inputs and outputs in the order of these names of the signature; the converter sorts them by name."""
        for signature in (self.model.signatureDefs or [])[:1]:
            signature.inputs = reordered(signature.inputs, inputs)
            signature.outputs = reordered(signature.outputs, outputs)
            for ports, entries in ((self.graph.inputs, signature.inputs), (self.graph.outputs, signature.outputs)):
                found = [entry.tensorIndex for entry in entries]
                if sorted(found) == sorted(int(index) for index in ports):
                    ports[:] = found


def reordered(entries: Iterable[Any], names: list[str]) -> list[Any]:
    """Entries of a signature in the order of `names`; others keep theirs, behind."""
    place = {name: at for at, name in enumerate(names)}
    return sorted(entries, key=lambda entry: place.get(as_text(entry.name), len(names)))


def is_quantized(tensor: Any) -> bool:
    """Whether its numbers are integers that stand for real ones."""
    scale = tensor.quantization.scale if tensor.quantization is not None else None
    return tensor.type in _QUANTIZED and scale is not None and len(scale) > 0


def is_int8(tensor: Any) -> bool:
    return bool(tensor.type == schema.TensorType.INT8)


def is_uint8(tensor: Any) -> bool:
    return bool(tensor.type == schema.TensorType.UINT8)


def is_int32(tensor: Any) -> bool:
    return bool(tensor.type == schema.TensorType.INT32)


def is_int16(tensor: Any) -> bool:
    return bool(tensor.type == schema.TensorType.INT16)


def is_float(tensor: Any) -> bool:
    """Of 32 bits: what is computed with. Weights may lie in 16."""
    return bool(tensor.type == schema.TensorType.FLOAT32)


def _indices(values: Any) -> tuple[int, ...]:
    return () if values is None else tuple(int(value) for value in values)


def as_text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
