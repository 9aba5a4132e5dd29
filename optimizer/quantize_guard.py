"""Whether an artifact really is what was asked for: converters leave things be without a word. No TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from optimizer.flatfile import Flatfile, Operator, is_float
from optimizer.quantize_names import Named
from optimizer.quantize_options import ConversionError, Options

# Between float and integers: what stands at the interface, and around operators that stay float.
_CASTS = frozenset({"QUANTIZE", "DEQUANTIZE", "CAST"})
_WEIGHTED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "CONV_3D"})
_STORED = {"int8": "int8", "int16x8": "int8", "float16": "float16", "dynamic": "int8"}


class Found(NamedTuple):
    """What an artifact is made of."""

    operators: int
    float_operators: tuple[str, ...]
    """Names of the operators that compute with floats, without those that only convert."""
    weight_bytes: int
    float_weight_bytes: int
    """What the same weights take in 32 bits."""


def check(content: bytes, options: Options, kept: Iterable[str] = ()) -> Found:
    """Raise ConversionError unless weights are stored as the scheme says, take fewer bytes than as float, and, where
    the scheme is of integers, only `kept` operators compute with floats, and those that have no integer form."""
    file = Flatfile(content)
    found = found_in(file)
    _check_weights(file, options, found)
    if options.scheme in ("int8", "int16x8"):
        _check_operators(file, options, set(kept), found)
    return found


def found_in(file: Flatfile) -> Found:
    named = Named(file)
    floating = [name for name, op in zip(named.names, named.operators, strict=True) if computes_float(file, op)]
    sizes = {
        file.tensor(index).buffer: (values.nbytes, 4 * values.size)
        for op in named.operators
        for index in op.inputs
        if index >= 0 and (values := file.constant(index)) is not None and _is_weight(file, index)
    }
    stored, as_float = (sum(size[side] for size in sizes.values()) for side in (0, 1))
    return Found(len(named.names), tuple(floating), stored, as_float)


def computes_float(file: Flatfile, op: Operator) -> bool:
    return op.name not in _CASTS and any(is_float(file.tensor(index)) for index in op.outputs)


def _is_weight(file: Flatfile, index: int) -> bool:
    values = file.constant(index)
    return values is not None and (values.dtype.kind == "f" or bool(file.scales(index)))


def _check_weights(file: Flatfile, options: Options, found: Found) -> None:
    if not found.float_weight_bytes:
        return
    wanted = _STORED[options.scheme]
    dtypes = {
        values.dtype.name
        for op in file.operators()
        for index in op.inputs
        if index >= 0 and (values := file.constant(index)) is not None and _is_weight(file, index)
    }
    if wanted not in dtypes:
        small = "; its weights have fewer than 1,024 elements each, which stay float" * (options.scheme == "dynamic")
        raise ConversionError(f"scheme {options.scheme} left the model as it was: it has no {wanted} weights{small}")
    if found.weight_bytes >= found.float_weight_bytes:
        raise ConversionError(
            f"scheme {options.scheme} saved nothing: weights take {found.weight_bytes} bytes, "
            f"as float {found.float_weight_bytes}"
        )


def _check_operators(file: Flatfile, options: Options, kept: set[str], found: Found) -> None:
    """A weighted operator has an integer form: one that stays float without being asked to was forgotten."""
    named = Named(file)
    operators = dict(zip(named.names, named.operators, strict=True))
    strange = [name for name in found.float_operators if not _among(named.tensors(name) or (), kept)]
    forgotten = [name for name in strange if operators[name].name in _WEIGHTED or not options.mixed]
    if forgotten:
        listed = ", ".join(f"{name} ({operators[name].name})" for name in forgotten[:8])
        why = "" if options.mixed else ", and the profile's hardware has no float (numerics.mixed = false)"
        raise ConversionError(f"{len(forgotten)} operators stayed float: {listed}{why}")


def _among(tensors: Iterable[str], kept: set[str]) -> bool:
    """The converter adds a digit to the name of a tensor whose first name went to a conversion behind it."""
    return any(
        name in kept or name.rstrip("0123456789") in {one.rstrip("0123456789") for one in kept} for name in tensors
    )
