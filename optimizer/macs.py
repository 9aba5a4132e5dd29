"""How large a model is: parameters, and multiply-accumulates (MACs) for one row.

MACs are those of convolutions, dense and recurrent layers and attention, which dominate; additions, pooling and
activations count nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
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
        macs += of_operator(file, op)
        # Weights stored as float16 come through DEQUANTIZE.
        if op.name in _PER_OUTPUT or op.name == "DEQUANTIZE":
            weights.update({index: math.prod(file.shape(index)) for index in op.inputs if _is_weight(file, index)})
    return Size(sum(weights.values()), macs)


def of_operator(file: Flatfile, op: Operator) -> int:
    """MACs of one operator; 0 for those that do not count."""
    return _PER_OUTPUT[op.name](file, op) if op.name in _PER_OUTPUT else 0


def of_keras(layers: Iterable[Any]) -> int:
    """MACs of one row through Keras layers, by their shapes. A layer used several times counts once."""
    return sum(_layer(layer) for layer in layers)


def _layer(layer: Any) -> int:
    if hasattr(layer, "layers"):
        return of_keras(layer.layers)
    count = _KERAS.get(type(layer).__name__)
    return count(layer) if count else 0


def _keras_dense(layer: Any) -> int:
    return _places(layer.output) // int(layer.kernel.shape[-1]) * _size(layer.kernel.shape)


def _keras_einsum(layer: Any) -> int:
    """Over the last axis, as a dense layer; others count nothing."""
    return _keras_dense(layer) if len(layer.kernel.shape) == 2 else 0


def _keras_conv(layer: Any) -> int:
    return _places(layer.output) * _size(layer.kernel.shape[:-1])


def _keras_transposed(layer: Any) -> int:
    return _places(layer.input) * _size(layer.kernel.shape[:-1])


def _keras_depthwise(layer: Any) -> int:
    return _places(layer.output) * _size(layer.kernel.shape[:-2])


def _keras_separable(layer: Any) -> int:
    pointwise = layer.pointwise_kernel.shape
    positions = _places(layer.output) // int(pointwise[-1])
    return positions * (_size(layer.depthwise_kernel.shape) + _size(pointwise))


def _keras_recurrent(layer: Any) -> int:
    steps = int(_tensors(layer.input)[0].shape[1])
    return steps * (_size(layer.cell.kernel.shape) + _size(layer.cell.recurrent_kernel.shape))


def _keras_bidirectional(layer: Any) -> int:
    steps = int(_tensors(layer.input)[0].shape[1])
    cells = (layer.forward_layer.cell, layer.backward_layer.cell)
    return steps * sum(_size(cell.kernel.shape) + _size(cell.recurrent_kernel.shape) for cell in cells)


def _keras_each_step(layer: Any) -> int:
    """TimeDistributed around a dense layer or a convolution; others count nothing."""
    plain = type(layer.layer).__name__ in ("Dense", "Conv1D", "Conv2D", "Conv3D")
    return _places(layer.output) * _size(layer.layer.kernel.shape[:-1]) if plain else 0


def _keras_attention(layer: Any) -> int:
    """Projections of query, key, value and output; scores of every pair of steps and the sums by them."""
    query, value = (int(tensor.shape[1]) for tensor in (_tensors(layer.input) * 2)[:2])
    projections = sum(
        steps * _size(part.kernel.shape)
        for steps, part in zip(
            (query, value, value, query),
            (layer.query_dense, layer.key_dense, layer.value_dense, layer.output_dense),
            strict=True,
        )
    )
    inner = sum(_size(part.kernel.shape[1:]) for part in (layer.key_dense, layer.value_dense))
    return projections + query * value * inner


_KERAS: dict[str, Callable[[Any], int]] = {
    "Dense": _keras_dense,
    "EinsumDense": _keras_einsum,
    "Conv1D": _keras_conv,
    "Conv2D": _keras_conv,
    "Conv3D": _keras_conv,
    "Conv1DTranspose": _keras_transposed,
    "Conv2DTranspose": _keras_transposed,
    "DepthwiseConv1D": _keras_depthwise,
    "DepthwiseConv2D": _keras_depthwise,
    "SeparableConv1D": _keras_separable,
    "SeparableConv2D": _keras_separable,
    **dict.fromkeys(("SimpleRNN", "GRU", "LSTM"), _keras_recurrent),
    "Bidirectional": _keras_bidirectional,
    "TimeDistributed": _keras_each_step,
    "MultiHeadAttention": _keras_attention,
}


def _tensors(given: Any) -> list[Any]:
    return list(given) if isinstance(given, list | tuple) else [given]


def _places(tensor: Any) -> int:
    """Elements of one row."""
    return _size(tensor.shape[1:])


def _size(shape: Iterable[Any]) -> int:
    """A size that is not known counts once."""
    return math.prod(int(size or 1) for size in shape)


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
