"""PURE: numbers as a quantized model stores them, and the real numbers that they stand for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.contract.tensors import Tensor, TensorSpec


def real(spec: TensorSpec, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Dequantize: (stored - zero point) * scale as float32. What has no scale stays what it is."""
    if spec.scale is None or spec.zero_point is None:
        return array
    numbers: npt.NDArray[Any] = array.astype(np.float32)
    numbers -= spec.zero_point
    numbers *= spec.scale
    return numbers


def reals(tensors: Iterable[Tensor], specs: Iterable[TensorSpec]) -> tuple[Tensor, ...]:
    """The tensors as real numbers, where they come as one of `specs` stores them; others as they are."""
    by_name = {spec.name: spec for spec in specs}
    return tuple(_real(tensor, by_name.get(tensor.name)) for tensor in tensors)


def _real(tensor: Tensor, spec: TensorSpec | None) -> Tensor:
    if spec is None or spec.scale is None or tensor.dtype != spec.dtype:
        return tensor
    array = real(spec, np.frombuffer(tensor.data, tensor.dtype))
    return Tensor(tensor.name, str(array.dtype), tensor.shape, array.tobytes())
