"""How large a model is: parameters, and multiply-accumulates (MACs) for one row.

MACs are those of convolutions and matrix products, which dominate; additions, pooling and activations count nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from optimizer.flatfile import Flatfile, Operator


class Size(NamedTuple):
    parameters: int
    macs: int


def of_tflite(content: bytes) -> Size:
    """Of a .tflite model: every stored weight and bias, and the MACs of its operators."""
    file = Flatfile(content)
    weights: dict[int, int] = {}
    macs = 0
    for op in file.operators():
        if op.name in _PER_OUTPUT:
            macs += _PER_OUTPUT[op.name](file, op)
            weights.update({index: math.prod(file.shape(index)) for index in op.inputs if _is_weight(file, index)})
    return Size(sum(weights.values()), macs)


def of_keras(layers: Iterable[Any]) -> int:
    """MACs of one row through Keras layers, by their shapes."""
    return sum(_layer(layer) for layer in layers)


def _layer(layer: Any) -> int:
    if hasattr(layer, "layers"):
        return of_keras(layer.layers)
    kind = type(layer).__name__
    kernel = getattr(layer, "kernel", None)
    if kind in ("Dense", "EinsumDense") and kernel is not None:
        return _places(layer.output) // max(1, int(kernel.shape[-1])) * math.prod(kernel.shape)
    if kind in ("Conv1D", "Conv2D", "Conv3D") and kernel is not None:
        return _places(layer.output) * math.prod(kernel.shape[:-1])
    if kind in ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose") and kernel is not None:
        return _places(layer.input) * math.prod(kernel.shape[:-1])
    if kind in ("DepthwiseConv1D", "DepthwiseConv2D") and kernel is not None:
        return _places(layer.output) * math.prod(kernel.shape[:-2])
    if kind in ("SeparableConv1D", "SeparableConv2D"):
        depthwise, pointwise = layer.depthwise_kernel.shape, layer.pointwise_kernel.shape
        positions = _places(layer.output) // max(1, int(pointwise[-1]))
        return positions * (math.prod(depthwise) + math.prod(pointwise))
    return 0


def _places(tensor: Any) -> int:
    """Elements of one row."""
    return math.prod(int(size) for size in tensor.shape[1:])


def _is_weight(file: Flatfile, index: int) -> bool:
    """A stored number that was learned: quantized, or float; not a shape."""
    values = file.constant(index) if index >= 0 else None
    return values is not None and (values.dtype.kind == "f" or bool(file.scales(index)))


def _conv(file: Flatfile, op: Operator) -> int:
    _, height, width, channels = file.shape(op.inputs[1])
    return math.prod(file.shape(op.outputs[0])) * height * width * channels


def _depthwise(file: Flatfile, op: Operator) -> int:
    _, height, width, _ = file.shape(op.inputs[1])
    return math.prod(file.shape(op.outputs[0])) * height * width


def _dense(file: Flatfile, op: Operator) -> int:
    return math.prod(file.shape(op.outputs[0])) * file.shape(op.inputs[1])[-1]


def _transposed(file: Flatfile, op: Operator) -> int:
    filters, height, width, _ = file.shape(op.inputs[1])
    return math.prod(file.shape(op.inputs[2])) * height * width * filters


def _matmul(file: Flatfile, op: Operator) -> int:
    return math.prod(file.shape(op.outputs[0])) * file.shape(op.inputs[0])[-1]


_PER_OUTPUT = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _dense,
    "TRANSPOSE_CONV": _transposed,
    "BATCH_MATMUL": _matmul,
}
