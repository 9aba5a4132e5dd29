"""Named tensors on the wire: raw little-endian bytes in C order, with dtype and shape beside them. No numpy."""

from __future__ import annotations

import math
from functools import lru_cache

import msgspec

# numpy's names, and how many bytes one element takes.
DTYPES = {
    "bool": 1,
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "int32": 4,
    "uint32": 4,
    "int64": 8,
    "uint64": 8,
    "float16": 2,
    "float32": 4,
    "float64": 8,
}
MAX_RANK = 8


class TensorError(ValueError):
    """A tensor that does not fit its own description, or its model."""


class TensorSpec(msgspec.Struct, frozen=True):
    """One input or output of a model. `shape` has no batch axis; real = scale * (stored - zero_point)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float | None = None
    zero_point: int | None = None


class Tensor(msgspec.Struct, frozen=True):
    """A named array. `shape` includes the batch axis (rows first); `data` holds prod(shape) elements of `dtype`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes


def rows_of(tensors: tuple[Tensor, ...]) -> int:
    """Check that every tensor is whole and that all have the same number of rows; return that number."""
    if not tensors:
        raise TensorError("no tensors: name at least one input")
    for tensor in tensors:
        check(tensor)
    rows = tensors[0].shape[0]
    if len(tensors) > 1 and any(tensor.shape[0] != rows for tensor in tensors):
        counts = sorted({tensor.shape[0] for tensor in tensors})
        raise TensorError(f"inputs disagree on the number of rows: {counts}")
    return rows


def check(tensor: Tensor) -> None:
    """Raise TensorError unless dtype, shape and length agree."""
    size = size_of(tensor.dtype, tensor.shape)
    if size == len(tensor.data):
        return
    if tensor.dtype not in DTYPES:
        raise TensorError(f"tensor {tensor.name!r} has dtype {tensor.dtype!r}; allowed: {', '.join(DTYPES)}")
    if size is None:
        raise TensorError(
            f"tensor {tensor.name!r} has shape {list(tensor.shape)}; 1 to {MAX_RANK} sizes >= 0, rows first"
        )
    raise TensorError(
        f"tensor {tensor.name!r} of {tensor.dtype} {list(tensor.shape)} needs {size} bytes, got {len(tensor.data)}"
    )


@lru_cache(1024)
def size_of(dtype: str, shape: tuple[int, ...]) -> int | None:
    """Bytes of such a tensor; None where there can be none."""
    if dtype not in DTYPES or not 1 <= len(shape) <= MAX_RANK or any(n < 0 for n in shape):
        return None
    return math.prod(shape, start=DTYPES[dtype])
