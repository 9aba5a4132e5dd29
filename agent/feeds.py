"""In a worker: what came on a bound topic becomes the model's input, and its output a prediction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from agent import sound
from agent.contract import pictures
from agent.contract.golden import Array
from agent.contract.manifest import Preprocessing
from agent.contract.predictions import MAX_SCORES, Guess, best_of
from agent.contract.tensors import Tensor, TensorError, TensorSpec
from agent.frames import Feed
from agent.runtime import ModelError

_MOST_PIXELS = 16_000_000
"""Unpacked, that is 64 MB: what a small device can spare for a moment."""
_KINDS = ("JPEG", "PNG")


def inputs_of(feed: Feed, specs: tuple[TensorSpec, ...], preprocessing: Preprocessing | None) -> tuple[Tensor, ...]:
    """One row. `preprocessing` is that of the model's manifest. Raises TensorError for what is not as declared, and
    ModelError where this device lacks something."""
    binding = feed.binding
    if binding.format == "json":
        return _from_json(feed.payload, specs, binding.input)
    spec = _one(specs, binding.input)
    if binding.format == "tensor":
        return (_raw(feed.payload, spec),)
    if binding.format == "image":
        return (_row(spec, _picture(feed.payload, binding.preprocessing or preprocessing)),)
    if binding.audio is None:
        raise TensorError(f"format {binding.format!r} is not known here")
    return (_row(spec, sound.features(binding.audio, feed.payload)),)


def found(
    outputs: Mapping[str, Array], labels: Sequence[str], top_k: int
) -> tuple[tuple[Guess, ...], tuple[float, ...]]:
    """Of the first output's first row: the best classes, best first, and every number where they are few enough.

    A row of one number, or of several axes, has no classes.
    """
    row = next(iter(outputs.values()))[0]
    scores = tuple(float(score) for score in row.ravel()) if row.size <= MAX_SCORES else ()
    if row.ndim != 1 or row.size < 2:
        return (), scores
    return best_of(row, labels, top_k), scores


def _raw(payload: bytes, spec: TensorSpec) -> Tensor:
    count = math.prod(spec.shape)
    for dtype in (spec.dtype, "float32"):
        if len(payload) == count * np.dtype(dtype).itemsize:
            return Tensor(spec.name, dtype, (1, *spec.shape), payload)
    raise TensorError(
        f"{len(payload)} bytes came; input {spec.name!r} {list(spec.shape)} takes "
        f"{count * np.dtype(spec.dtype).itemsize} of {spec.dtype} or {count * 4} of float32"
    )


def _picture(payload: bytes, how: Preprocessing | None) -> Array:
    if how is None:
        raise TensorError("neither the binding nor the model says how a picture becomes an input: add preprocessing")
    try:
        return pictures.to_array(payload, how, _KINDS, _MOST_PIXELS)
    except pictures.PictureError as error:
        raise TensorError(f"no picture that can be read (JPEG and PNG can): {error}") from error
    except ImportError as error:
        raise ModelError("pictures need Pillow, which is not installed here: pip install 'lepta[image]'") from error


def _from_json(payload: bytes, specs: tuple[TensorSpec, ...], name: str) -> tuple[Tensor, ...]:
    try:
        value = msgspec.json.decode(payload)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise TensorError(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        return (_row(_one(specs, name), _numbers(value)),)
    if "scores" in value and "binding" in value:
        return (_row(_one(specs, name), _numbers(value["scores"])),)
    if isinstance(value.get("inputs"), list):
        value = {str(item.get("name")): item.get("data") for item in value["inputs"] if isinstance(item, dict)}
    wanted = {spec.name for spec in specs}
    if set(value) != wanted:
        raise TensorError(f"inputs {', '.join(sorted(value)) or 'none'} came; {', '.join(sorted(wanted))} are wanted")
    return tuple(_row(spec, _numbers(value[spec.name])) for spec in specs)


def _numbers(value: Any) -> Array:
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError) as error:
        raise TensorError(f"no array of numbers: {error}") from error
    if array.dtype.kind not in "fiub":
        raise TensorError("no array of numbers")
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def _row(spec: TensorSpec, array: Array) -> Tensor:
    """As one row of this input, whatever axes it came with."""
    if array.size != math.prod(spec.shape):
        raise TensorError(f"{list(array.shape)} came; input {spec.name!r} takes {list(spec.shape)}")
    return Tensor(spec.name, array.dtype.name, (1, *spec.shape), np.ascontiguousarray(array).tobytes())


def _one(specs: tuple[TensorSpec, ...], name: str) -> TensorSpec:
    """The input that is fed."""
    if len(specs) == 1 and name in ("", specs[0].name):
        return specs[0]
    names = ", ".join(spec.name for spec in specs)
    if len(specs) > 1:
        raise TensorError(f"the model takes {len(specs)} inputs ({names}): bind json that names them")
    raise TensorError(f"the model has no input {name!r}; it takes {names}")
