"""Writes .tflite graphs without TensorFlow: tensors and layers in, flatbuffer out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

Array = npt.NDArray[Any]

_TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "float16": schema.TensorType.FLOAT16,
    "int8": schema.TensorType.INT8,
    "uint8": schema.TensorType.UINT8,
    "int32": schema.TensorType.INT32,
    "bool": schema.TensorType.BOOL,
}
# Of an operator, where it is not 2.
_VERSIONS = {
    schema.BuiltinOperator.CONV_2D: 3,
    schema.BuiltinOperator.DEPTHWISE_CONV_2D: 3,
    schema.BuiltinOperator.RESHAPE: 1,
    schema.BuiltinOperator.CAST: 1,
    schema.BuiltinOperator.GATHER: 1,
    schema.BuiltinOperator.SQRT: 1,
    schema.BuiltinOperator.WHILE: 1,
    schema.BuiltinOperator.GREATER: 1,
    schema.BuiltinOperator.REDUCE_MAX: 1,
    schema.BuiltinOperator.MUL: 1,
}
SAME = schema.Padding.SAME
VALID = schema.Padding.VALID
NONE = schema.ActivationFunctionType.NONE
RELU = schema.ActivationFunctionType.RELU
RELU6 = schema.ActivationFunctionType.RELU6

# Activations after ReLU6 use the whole of int8 for 0 to 6; linear ones -8 to 8.
RELU6_SCALE, RELU6_ZERO = 6 / 255, -128
LINEAR_SCALE, LINEAR_ZERO = 16 / 255, 0
SOFTMAX_SCALE, SOFTMAX_ZERO = 1 / 256, -128


class Ref(NamedTuple):
    """A tensor of the graph. `shape` has the batch axis."""

    at: int
    shape: tuple[int, ...]
    scale: float


class Graph:
    """One subgraph under construction. Layers are int8; convolutions have a weight scale per channel, or one."""

    def __init__(self, seed: int = 0, *, per_tensor: bool = False) -> None:
        self._per_tensor = per_tensor
        self.random = np.random.default_rng(seed)
        self._buffers = [_buffer(b"")]
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._codes: list[tuple[int, str]] = []
        self._parts: list[Any] = []

    def tensor(
        self, name: str, shape: Sequence[int], dtype: str = "int8", scale: float | None = None, zero_point: int = 0
    ) -> Ref:
        """An activation."""
        quantization = schema.QuantizationParametersT()
        if scale is not None:
            quantization.scale, quantization.zeroPoint = [scale], [zero_point]
        return Ref(self._add(name, shape, dtype, 0, quantization), tuple(shape), scale or 1.0)

    def constant(self, name: str, values: Array, scales: Array | None = None, axis: int = 0) -> int:
        """Weights, a bias or a shape; with one scale per slice along `axis`. Returns its index."""
        quantization = schema.QuantizationParametersT()
        if scales is not None:
            quantization.scale = [float(scale) for scale in scales]
            quantization.zeroPoint, quantization.quantizedDimension = [0] * len(scales), axis
        self._buffers.append(_buffer(values.tobytes()))
        return self._add(name, values.shape, str(values.dtype), len(self._buffers) - 1, quantization)

    def operator(self, name: str, inputs: Sequence[int], outputs: Sequence[int], options: Any = None) -> None:
        """`name` is a builtin operator of the schema, or any other name for a custom operator."""
        builtin = getattr(schema.BuiltinOperator, name, schema.BuiltinOperator.CUSTOM)
        code = (builtin, name if builtin == schema.BuiltinOperator.CUSTOM else "")
        if code not in self._codes:
            self._codes.append(code)
        made = schema.OperatorT()
        made.opcodeIndex = self._codes.index(code)
        made.inputs, made.outputs = list(inputs), list(outputs)
        if options is not None:
            made.builtinOptions = options
            made.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self._operators.append(made)

    def dense(self, name: str, x: Ref, weights: Array, bias: Array, scale: float) -> Ref:
        """A linear layer from float weights (out, in) and bias (out,); one scale for all weights."""
        step = float(np.abs(weights).max()) / 127 or 1.0
        stored = np.clip(np.round(weights / step), -127, 127).astype(np.int8)
        kernel = self.constant(f"{name}/kernel", stored, np.array([step]))
        offset = np.round(bias / (step * x.scale)).astype(np.int32)
        added = self.constant(f"{name}/bias", offset, np.array([step * x.scale]))
        out = self.tensor(name, (x.shape[0], len(weights)), scale=scale)
        options = schema.FullyConnectedOptionsT()
        self.operator("FULLY_CONNECTED", [x.at, kernel, added], [out.at], options)
        return out

    def conv(self, name: str, x: Ref, filters: int, kernel: tuple[int, int], stride: int = 1, relu: bool = True) -> Ref:
        """A convolution with random weights that keep the variance."""
        shape = (filters, *kernel, x.shape[3])
        options = schema.Conv2DOptionsT()
        return self._convolution("CONV_2D", name, x, shape, options, stride, relu)

    def depthwise(self, name: str, x: Ref, kernel: tuple[int, int] = (3, 3), stride: int = 1) -> Ref:
        options = schema.DepthwiseConv2DOptionsT()
        options.depthMultiplier = 1
        return self._convolution("DEPTHWISE_CONV_2D", name, x, (1, *kernel, x.shape[3]), options, stride, True)

    def add(self, name: str, a: Ref, b: Ref) -> Ref:
        out = self.tensor(name, a.shape, scale=LINEAR_SCALE, zero_point=LINEAR_ZERO)
        self.operator("ADD", [a.at, b.at], [out.at], schema.AddOptionsT())
        return out

    def mean(self, name: str, x: Ref) -> Ref:
        """Global average over height and width."""
        axes = self.constant(f"{name}/axes", np.array([1, 2], np.int32))
        out = self.tensor(name, (x.shape[0], x.shape[3]), scale=x.scale, zero_point=RELU6_ZERO)
        self.operator("MEAN", [x.at, axes], [out.at], schema.ReducerOptionsT())
        return out

    def softmax(self, name: str, x: Ref) -> Ref:
        out = self.tensor(name, x.shape, scale=SOFTMAX_SCALE, zero_point=SOFTMAX_ZERO)
        options = schema.SoftmaxOptionsT()
        options.beta = 1.0
        self.operator("SOFTMAX", [x.at], [out.at], options)
        return out

    def part(self, inputs: Sequence[Ref], outputs: Sequence[Ref]) -> int:
        """What was added so far becomes a subgraph of its own, for a loop; returns its number. The main graph is
        begun anew and is number 0."""
        made = schema.SubGraphT()
        made.name, made.tensors, made.operators = f"part{len(self._parts)}", self._tensors, self._operators
        made.inputs, made.outputs = [ref.at for ref in inputs], [ref.at for ref in outputs]
        self._parts.append(made)
        self._tensors, self._operators = [], []
        return len(self._parts)

    def finish(self, inputs: dict[str, Ref], outputs: dict[str, Ref]) -> bytes:
        """The flatbuffer, with one signature of these names."""
        subgraph = schema.SubGraphT()
        subgraph.name, subgraph.tensors, subgraph.operators = "main", self._tensors, self._operators
        subgraph.inputs = [ref.at for ref in inputs.values()]
        subgraph.outputs = [ref.at for ref in outputs.values()]
        model = schema.ModelT()
        model.version, model.description = 3, "made by Lepta's tests"
        model.subgraphs, model.buffers = [subgraph, *self._parts], self._buffers
        model.operatorCodes = [_code(builtin, custom) for builtin, custom in self._codes]
        model.signatureDefs = [_signature(inputs, outputs)]
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _add(self, name: str, shape: Sequence[int], dtype: str, buffer: int, quantization: Any) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.type = name, list(shape), _TYPES[dtype]
        made.buffer, made.quantization = buffer, quantization
        self._tensors.append(made)
        return len(self._tensors) - 1

    def _convolution(
        self, operator: str, name: str, x: Ref, shape: tuple[int, ...], options: Any, stride: int, relu: bool
    ) -> Ref:
        axis = 3 if operator == "DEPTHWISE_CONV_2D" else 0
        channels, fan_in = shape[axis], math.prod(shape) // shape[axis]
        weights = self.random.integers(-127, 128, shape, np.int8)
        # Uniform int8 has a deviation of 73; ReLU halves the power, so the gain is 2.
        scales = np.full(1 if self._per_tensor else channels, math.sqrt(2 / fan_in) / 73)
        kernel = self.constant(f"{name}/kernel", weights, scales, axis)
        bias = self.constant(f"{name}/bias", np.zeros(channels, np.int32), scales * x.scale)
        height, width = (-(-side // stride) for side in x.shape[1:3])
        scale, zero = (RELU6_SCALE, RELU6_ZERO) if relu else (LINEAR_SCALE, LINEAR_ZERO)
        out = self.tensor(name, (x.shape[0], height, width, channels), scale=scale, zero_point=zero)
        options.padding, options.strideH, options.strideW = SAME, stride, stride
        options.fusedActivationFunction = RELU6 if relu else NONE
        self.operator(operator, [x.at, kernel, bias], [out.at], options)
        return out


def _buffer(content: bytes) -> Any:
    made = schema.BufferT()
    made.data = np.frombuffer(content, np.uint8) if content else None
    return made


def _code(builtin: int, custom: str) -> Any:
    made = schema.OperatorCodeT()
    made.builtinCode = builtin
    made.deprecatedBuiltinCode = min(builtin, 127)
    made.version = _VERSIONS.get(builtin, 2)
    if custom:
        made.customCode, made.version = custom, 1
    return made


def _signature(inputs: dict[str, Ref], outputs: dict[str, Ref]) -> Any:
    made = schema.SignatureDefT()
    made.signatureKey, made.subgraphIndex = "serving_default", 0
    made.inputs = [_named(name, ref.at) for name, ref in inputs.items()]
    made.outputs = [_named(name, ref.at) for name, ref in outputs.items()]
    return made


def _named(name: str, index: int) -> Any:
    made = schema.TensorMapT()
    made.name, made.tensorIndex = name, index
    return made
