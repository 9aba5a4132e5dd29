"""What an int8 .tflite holds outside: a graph with unsigned tensors at its inputs or outputs."""

from __future__ import annotations

from ai_edge_litert import schema_py_generated as schema

from optimizer.flatfile import Flatfile, is_int8

_SHIFT = 128


def with_uint8(file: Flatfile, *, inputs: bool, outputs: bool) -> None:
    """Put operators that shift by 128 behind the int8 inputs, and before the int8 outputs: as the converter does."""
    before, after = [], []
    if inputs:
        before = [
            _shifted(file, index, outside_first=True) for index in list(file.graph.inputs) if _signed(file, index)
        ]
    if outputs:
        after = [
            _shifted(file, index, outside_first=False) for index in list(file.graph.outputs) if _signed(file, index)
        ]
    file.graph.operators = [*before, *file.graph.operators, *after]


def _signed(file: Flatfile, index: int) -> bool:
    return is_int8(file.tensor(index))


def _shifted(file: Flatfile, index: int, *, outside_first: bool) -> schema.OperatorT:
    """The new tensor takes the old one's place, and name, at the interface; returns the operator between them."""
    inner = file.tensor(index)
    outer = schema.TensorT()
    outer.name, outer.shape, outer.shapeSignature = inner.name, inner.shape, inner.shapeSignature
    outer.type, outer.buffer, outer.hasRank = schema.TensorType.UINT8, 0, inner.hasRank
    outer.quantization = schema.QuantizationParametersT()
    outer.quantization.scale = [float(inner.quantization.scale[0])]
    outer.quantization.zeroPoint = [int(inner.quantization.zeroPoint[0]) + _SHIFT]
    name = inner.name if isinstance(inner.name, bytes) else inner.name.encode()
    inner.name = name + b"_int8"
    file.graph.tensors.append(outer)
    at = len(file.graph.tensors) - 1
    ports = file.graph.inputs if outside_first else file.graph.outputs
    ports[:] = [at if int(port) == index else int(port) for port in ports]
    for signature in file.model.signatureDefs or []:
        for entry in signature.inputs if outside_first else signature.outputs:
            entry.tensorIndex = at if entry.tensorIndex == index else entry.tensorIndex
    made = schema.OperatorT()
    made.opcodeIndex = _opcode(file)
    made.inputs, made.outputs = ([at], [index]) if outside_first else ([index], [at])
    made.builtinOptionsType, made.builtinOptions = schema.BuiltinOptions.QuantizeOptions, schema.QuantizeOptionsT()
    return made


def _opcode(file: Flatfile) -> int:
    """Of QUANTIZE, which is added where the model has none."""
    for at, code in enumerate(file.model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == schema.BuiltinOperator.QUANTIZE:
            return at
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.QUANTIZE
    code.version = 2
    file.model.operatorCodes.append(code)
    return len(file.model.operatorCodes) - 1
