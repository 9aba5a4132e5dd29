"""A float .tflite in which a single thing is rounded as an int8 artifact rounds it. No TensorFlow.

That is one operator's weights, or one value on its way from operator to operator. What it does to the outputs is the
error that this thing brings.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from optimizer.flatfile import Array, Flatfile, Operator, is_float, is_int8, is_int16, is_uint8
from optimizer.quantize_names import tensor_name

CASTS = frozenset({"QUANTIZE", "DEQUANTIZE"})


class Stored(NamedTuple):
    """How an artifact stores an activation: real = scale * (stored - zero_point)."""

    scale: float
    zero_point: int
    type: int


class Artifact:
    """What an int8 artifact says of the float graph's tensors and operators, by their names."""

    def __init__(self, content: bytes) -> None:
        self.file = Flatfile(content)
        self.operators = {tensor_name(self.file, op.outputs[0]): op for op in self.file.operators() if op.outputs}
        self.stored = self._stored()
        graph = self.file.graph
        self.float_ports = {
            tensor_name(self.file, int(index))
            for index in (*graph.inputs, *graph.outputs)
            if is_float(self.file.tensor(int(index)))
        }
        """Inputs and outputs that hold floats outside."""

    def _stored(self) -> dict[str, Stored]:
        """Of a float port it is what lies behind its conversion."""
        file = self.file
        found = {}
        for index, tensor in enumerate(file.graph.tensors):
            if (is_int8(tensor) or is_uint8(tensor) or is_int16(tensor)) and len(file.scales(index)) == 1:
                found[tensor_name(file, index)] = Stored(file.scales(index)[0], file.zero_point(index), tensor.type)
        for op in file.operators():
            if op.name in CASTS:
                sides = [tensor_name(file, index) for index in (op.inputs[0], op.outputs[0])]
                inner, outer = sides if op.name == "DEQUANTIZE" else reversed(sides)
                if inner in found:
                    found.setdefault(outer, found[inner])
        return found

    def weights(self, written: str) -> dict[int, Array]:
        """The constants of the operator that writes this tensor as real numbers, by their place among its inputs."""
        op = self.operators.get(written)
        if op is None:
            return {}
        return {
            place: real
            for place, index in enumerate(op.inputs)
            if index >= 0 and (real := _real(self.file, index)) is not None
        }

    def reach(self, name: str) -> tuple[float, float]:
        """The least and the highest value that this activation can have; without bounds where it is no integer."""
        stored = self.stored.get(name)
        if stored is None:
            return -np.inf, np.inf
        bits, signed = (16 if stored.type == schema.TensorType.INT16 else 8), stored.type != schema.TensorType.UINT8
        first = -(1 << bits - 1) if signed else 0
        low, high = (stored.scale * (end - stored.zero_point) for end in (first, first + (1 << bits) - 1))
        return low, high

    def constant_bytes(self, written: str) -> int:
        op = self.operators.get(written)
        found = [self.file.constant(index) for index in op.inputs if index >= 0] if op else []
        return sum(values.nbytes for values in found if values is not None)


def with_weights(floating: bytes, op: Operator, weights: dict[int, Array]) -> bytes | None:
    """The float graph, this operator's constants as the artifact has them; None where it has none."""
    file = Flatfile(floating)
    changed = False
    for place, values in weights.items():
        index = op.inputs[place] if place < len(op.inputs) else -1
        old = file.constant(index) if index >= 0 else None
        if old is not None and old.dtype == np.float32 and old.size == values.size:
            file.set_constant(index, values.reshape(old.shape).astype(np.float32))
            changed = True
    return file.pack() if changed else None


def with_values(floating: bytes, rounded: dict[int, Stored]) -> bytes:
    """The float graph; these tensors go through the artifact's integers before anybody reads them."""
    file = Flatfile(floating)
    moved = {index: _through(file, index, stored) for index, stored in rounded.items()}
    operators: list[Any] = []
    for index in map(int, file.graph.inputs):
        operators += moved[index][1] if index in moved else []
    for op in file.graph.operators:
        op.inputs = [moved[int(index)][0] if int(index) in moved else int(index) for index in op.inputs]
        operators.append(op)
        for index in map(int, op.outputs):
            operators += moved[index][1] if index in moved else []
    file.graph.operators = operators
    file.graph.outputs = [moved[int(index)][0] if int(index) in moved else int(index) for index in file.graph.outputs]
    for signature in file.model.signatureDefs or []:
        for entry in signature.outputs:
            entry.tensorIndex = moved[entry.tensorIndex][0] if entry.tensorIndex in moved else entry.tensorIndex
    return file.pack()


def _through(file: Flatfile, index: int, stored: Stored) -> tuple[int, list[Any]]:
    """To integers and back: the tensor that comes back, and the two operators."""
    integers = _tensor(file, index, stored.type, stored)
    back = _tensor(file, index, schema.TensorType.FLOAT32, None)
    return back, [
        _cast(file, schema.BuiltinOperator.QUANTIZE, index, integers),
        _cast(file, schema.BuiltinOperator.DEQUANTIZE, integers, back),
    ]


def _tensor(file: Flatfile, like: int, kind: int, stored: Stored | None) -> int:
    made = schema.TensorT()
    made.name, made.shape, made.type, made.buffer = f"rounded{len(file.graph.tensors)}", file.shape(like), kind, 0
    if stored is not None:
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale, made.quantization.zeroPoint = [stored.scale], [stored.zero_point]
    file.graph.tensors.append(made)
    return len(file.graph.tensors) - 1


def _cast(file: Flatfile, builtin: int, source: int, target: int) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = builtin
    code.version = 2
    file.model.operatorCodes.append(code)
    made = schema.OperatorT()
    made.opcodeIndex, made.inputs, made.outputs = len(file.model.operatorCodes) - 1, [source], [target]
    return made


def _real(file: Flatfile, index: int) -> Array | None:
    """A stored constant as real numbers; None where it is no constant, or never was a real number."""
    values, scales = file.constant(index), file.scales(index)
    if values is None or not scales:
        return values if values is not None and values.dtype == np.float32 else None
    shape = [1] * values.ndim
    if len(scales) > 1:
        shape[file.tensor(index).quantization.quantizedDimension] = len(scales)
    points: Iterable[int] = file.tensor(index).quantization.zeroPoint
    zero = np.asarray(list(points), np.float64)
    real: Array = (values - zero.reshape(shape if zero.size > 1 else [])) * np.asarray(scales).reshape(
        shape if len(scales) > 1 else []
    )
    return real
