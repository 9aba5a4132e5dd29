"""Rewrites a per-tensor int8 .tflite so that every scale is a power of two.

Then a multiplication by in_scale * weight_scale / out_scale is a shift: what an FPGA fabric does for free. Activations
and weights become symmetric (zero point 0); softmax and its kin keep the scale that TFLite fixes for them, a power of
two as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from optimizer.errors import RefusedError
from optimizer.flatfile import Array, Flatfile, Operator, is_int8, is_int32, is_uint8
from optimizer.passes import Inputs, Progress
from optimizer.quantize_names import tensor_name
from optimizer.work_files import MODEL

# Outputs whose scale and zero point the operator fixes (TFLite quantization specification).
FIXED = {
    "LOGISTIC": (2.0**-8, -128),
    "SOFTMAX": (2.0**-8, -128),
    "TANH": (2.0**-7, 0),
    "L2_NORMALIZATION": (2.0**-7, 0),
    "LOG_SOFTMAX": (2.0**-4, 127),
}
# Operators that copy or compare stored values, so that inputs and outputs share one scale.
SHARED = frozenset(
    {"RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "SLICE", "STRIDED_SLICE", "SPLIT", "PACK", "UNPACK", "GATHER"}
    | {"PAD", "PADV2", "MIRROR_PAD", "CONCATENATION", "TILE", "SPACE_TO_DEPTH", "DEPTH_TO_SPACE", "REVERSE_V2"}
    | {"MAX_POOL_2D", "AVERAGE_POOL_2D", "MAXIMUM", "MINIMUM", "REDUCE_MAX", "REDUCE_MIN"}
    | {"RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "BATCH_TO_SPACE_ND", "SPACE_TO_BATCH_ND"}
)
# Operators whose inputs and outputs may have any scales.
FREE = frozenset(
    {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "BATCH_MATMUL"}
    | {
        "ADD",
        "SUB",
        "MUL",
        "MEAN",
        "SUM",
        "QUANTIZE",
        "DEQUANTIZE",
        "RELU",
        "RELU6",
        "LEAKY_RELU",
        "PRELU",
        "HARD_SWISH",
    }
)
# Places of input, weights and bias: the bias has the scale of their product.
WEIGHTED = {
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"), (0, 1, 2)),
    "TRANSPOSE_CONV": (2, 1, 3),
}

SATURATION = 1.25
"""How far a range may exceed what the next smaller scale holds: a little saturation costs less than a whole bit."""


class Pow2Error(RefusedError):
    """A model that cannot be rewritten."""


class _Scale(NamedTuple):
    scale: float
    zero_point: int


def rewrite(content: bytes) -> bytes:
    """A full-integer, per-tensor int8 model with every scale a power of two. Raises Pow2Error for other models."""
    file = Flatfile(content)
    operators = list(file.operators())
    _check(file, operators)
    old = {index: _Scale(file.scales(index)[0], file.zero_point(index)) for index in _quantized(file)}
    new = _new_scales(file, operators, old)
    for index, scale in new.items():
        values = file.constant(index)
        if values is not None:
            file.set_constant(index, _requantized(file, index, values, old[index], scale))
        file.set_scale(index, *scale)
    _biases(file, operators)
    return file.pack()


def rewrite_file(inputs: Inputs, settings: dict[str, Any], out: Path, progress: Progress) -> dict[str, Any]:
    """The pass: `source`, a per-tensor model, becomes model.tflite."""
    rewritten = rewrite(inputs["source"].read_bytes())
    check_scales(rewritten)
    (out / MODEL).write_bytes(rewritten)
    progress(1.0, "power-of-two scales")
    return {"bytes": len(rewritten)}


class TensorScale(NamedTuple):
    """A quantized tensor as a shift-only fabric sees it."""

    name: str
    scale: float
    zero_point: int
    power_of_two: bool
    symmetric: bool
    """Zero point 0; or what the operator that writes it fixes (softmax and its kin), or what reads that."""


def scales_of(content: bytes) -> list[TensorScale]:
    """Every quantized tensor of a .tflite, weights and biases too; one scale per channel counts as no power of two."""
    file = Flatfile(content)
    return [_seen(file, index, _fixed_points(file)) for index in range(len(file.graph.tensors)) if file.scales(index)]


def check_scales(content: bytes) -> None:
    """Raise Pow2Error unless every tensor is symmetric, with one scale 2^n."""
    strange = [tensor for tensor in scales_of(content) if not (tensor.power_of_two and tensor.symmetric)]
    if strange:
        listed = ", ".join(f"{one.name} ({one.scale:g}, {one.zero_point})" for one in strange[:5])
        raise Pow2Error(f"{len(strange)} tensors have no power-of-two scale with zero point 0: {listed}")


def _fixed_points(file: Flatfile) -> dict[int, int]:
    """Zero points that an operator fixes, by tensor; what shares the scale has it too, and uint8 is 128 above."""
    operators = list(file.operators())
    points = {op.outputs[0]: FIXED[op.name][1] for op in operators if op.name in FIXED}
    groups = groups_of(operators, (index for index in range(len(file.graph.tensors)) if file.scales(index)))
    fixed = {groups[index]: point for index, point in points.items()}
    return {index: fixed.get(group, 0) for index, group in groups.items()}


def _seen(file: Flatfile, index: int, points: dict[int, int]) -> TensorScale:
    scales, zero_point = file.scales(index), file.zero_point(index)
    allowed = points[index] + 128 * is_uint8(file.tensor(index))
    whole = len(scales) == 1 and math.frexp(scales[0])[0] == 0.5
    return TensorScale(tensor_name(file, index), scales[0], zero_point, whole, zero_point == allowed)


def nearest_scale(largest: float) -> float:
    """The power of two for values up to `largest` in int8: the smallest that saturates at most a little."""
    if largest <= 0 or not math.isfinite(largest):
        return 2.0**-7
    return float(2.0 ** math.ceil(math.log2(largest / 127 / SATURATION)))


def _check(file: Flatfile, operators: list[Operator]) -> None:
    for op in operators:
        if op.name not in SHARED | FREE | FIXED.keys():
            raise Pow2Error(
                f"operator {op.name} has no power-of-two form here; replace it, or use a profile per tensor"
            )
    for index in range(len(file.graph.tensors)):
        if len(file.scales(index)) > 1:
            raise Pow2Error("weights have one scale per channel; power-of-two scales start from a model per tensor")


def _quantized(file: Flatfile) -> list[int]:
    """Activations and constants in 8 bits. Biases (int32) follow their inputs."""
    return [
        index
        for index, tensor in enumerate(file.graph.tensors)
        if (is_int8(tensor) or is_uint8(tensor)) and file.scales(index)
    ]


def _new_scales(file: Flatfile, operators: list[Operator], old: dict[int, _Scale]) -> dict[int, _Scale]:
    """One power-of-two scale per group of tensors that must share it; a lone constant gets the one it needs."""
    groups = groups_of(operators, old)
    fixed = {groups[op.outputs[0]]: _Scale(*FIXED[op.name]) for op in operators if op.name in FIXED}
    members: dict[int, list[int]] = {}
    for index in old:
        members.setdefault(groups[index], []).append(index)
    scales: dict[int, _Scale] = {}
    for group, indices in members.items():
        shared = fixed.get(group) or _Scale(_scale_for(file, indices, old), 0)
        scales.update({index: _in_dtype(file, index, shared) for index in indices})
    return scales


def _scale_for(file: Flatfile, group: list[int], old: dict[int, _Scale]) -> float:
    values = file.constant(group[0])
    if len(group) == 1 and values is not None:
        return _least_error(values, old[group[0]])
    return nearest_scale(max(_largest(file, index, old[index]) for index in group))


def _least_error(values: Array, old: _Scale) -> float:
    real = (values.astype(np.float64) - old.zero_point) * old.scale
    upper = float(2.0 ** math.ceil(math.log2(max(float(np.abs(real).max()), 1e-12) / 127)))
    candidates = [upper, upper / 2, upper / 4]
    errors = [float(np.square(np.clip(np.round(real / s), -127, 127) * s - real).sum()) for s in candidates]
    return candidates[int(np.argmin(errors))]


def groups_of(operators: Iterable[Operator], old: Iterable[int]) -> dict[int, int]:
    """Union of tensors over operators that need one scale: tensor -> its group's smallest tensor."""
    parent = {index: index for index in old}
    known = tuple(parent)

    def root(index: int) -> int:
        while parent[index] != index:
            index = parent[index]
        return index

    for op in operators:
        if op.name in SHARED:
            together = sorted(root(index) for index in (*op.inputs, *op.outputs) if index in parent)
            parent.update(dict.fromkeys(together, together[0]))
    return {index: root(index) for index in known}


def _largest(file: Flatfile, index: int, old: _Scale) -> float:
    """The largest magnitude that the tensor could hold before."""
    low, high = (0, 255) if is_uint8(file.tensor(index)) else (-128, 127)
    return max(abs(low - old.zero_point), abs(high - old.zero_point)) * old.scale


def _in_dtype(file: Flatfile, index: int, scale: _Scale) -> _Scale:
    """The same real values in uint8 need their zero point moved by 128."""
    return _Scale(scale.scale, scale.zero_point + 128) if is_uint8(file.tensor(index)) else scale


def _requantized(file: Flatfile, index: int, values: Array, old: _Scale, new: _Scale) -> Array:
    real = (values.astype(np.float64) - old.zero_point) * old.scale
    stored = np.round(real / new.scale) + new.zero_point
    low, high = (0, 255) if is_uint8(file.tensor(index)) else (-127, 127)
    clipped: Array = np.clip(stored, low, high).astype(values.dtype)
    return clipped


def _biases(file: Flatfile, operators: list[Operator]) -> None:
    """Store each bias again in steps of input scale * weight scale."""
    done: set[int] = set()
    for position, op in enumerate(operators):
        given, kernel, bias = WEIGHTED.get(op.name, (0, 0, len(op.inputs)))
        if bias >= len(op.inputs) or op.inputs[bias] < 0:
            continue
        index = op.inputs[bias]
        values, scales = file.constant(index), file.scales(index)
        if values is None or not scales or not is_int32(file.tensor(index)):
            continue
        if index in done:
            raise Pow2Error(f"operator {position} ({op.name}) shares its bias with another; give each layer its own")
        done.add(index)
        scale = file.scales(op.inputs[given])[0] * file.scales(op.inputs[kernel])[0]
        limits = np.iinfo(np.int32)
        stored = np.clip(np.round(values * (scales[0] / scale)), limits.min, limits.max).astype(np.int32)
        file.set_constant(index, stored)
        file.set_scale(index, scale, 0)
