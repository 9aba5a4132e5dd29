"""PURE: what a server of the Open Inference Protocol v2 tells about its models, the controller as well as a device. No
numpy.

Source: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol, and Triton's extensions for
model configuration and model repository: https://github.com/triton-inference-server/server/tree/main/docs/protocol
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

import msgspec

from agent.contract.oip_names import FROM_NUMPY, TO_NUMPY
from agent.contract.tensors import DTYPES, TensorSpec

EXTENSIONS = ("binary_tensor_data", "statistics", "model_repository", "model_configuration")
PLATFORM = "tflite_int8"
READY, UNAVAILABLE, LOADING, UNLOADING = "READY", "UNAVAILABLE", "LOADING", "UNLOADING"


class TensorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """`shape` starts with the rows axis, -1 for any number. `parameters` of an input say how the model stores it, where
    all artifacts of the version do it alike."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, Any] = {}


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """A model as the Open Inference Protocol describes it."""

    name: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...] = ()
    versions: tuple[str, ...] = ()
    platform: str = ""


class Standing(msgspec.Struct, frozen=True):
    """Where a version stands. READY: requests are answered by it. UNLOADING: still, but it is on its way out."""

    name: str
    version: str
    state: str
    reason: str = ""


class Wanted(msgspec.Struct):
    """A request of the model repository extension. `ready`: only versions that answer requests."""

    ready: bool = False
    parameters: dict[str, Any] = {}


def wanted(body: bytes) -> Wanted:
    """What a request to the repository says; its body may be empty. Raises ValueError."""
    try:
        return msgspec.json.decode(body, type=Wanted) if body.strip() else Wanted()
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"not a request of the repository extension: {error}") from error


def infos(specs: Iterable[TensorSpec], stored: Mapping[str, TensorSpec]) -> tuple[TensorInfo, ...]:
    """Inputs or outputs as users send and get them: real numbers, which an artifact's own scales turn into int8 and
    back on the device; what has no scale keeps its type. `stored`: those whose scale is told, by name."""
    return tuple(_info(spec, stored.get(spec.name)) for spec in specs)


def config(
    model: str, inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...], most_bytes: int
) -> dict[str, object]:
    """What Triton's tools read of its model configuration. A batch is what fits into a request of `most_bytes` with raw
    tensors."""
    row = sum(_width(info.datatype) * prod(info.shape[1:]) for info in inputs)
    return {
        "name": model,
        "platform": PLATFORM,
        "backend": "lepta",
        "max_batch_size": most_bytes // max(1, row),
        "input": [_configured(info) for info in inputs],
        "output": [_configured(info) for info in outputs],
    }


def _info(spec: TensorSpec, stored: TensorSpec | None) -> TensorInfo:
    return TensorInfo(
        name=spec.name,
        datatype=FROM_NUMPY[spec.dtype] if spec.scale is None else "FP32",
        shape=(-1, *spec.shape),
        parameters={} if stored is None else _stored(stored),
    )


def _stored(spec: TensorSpec) -> dict[str, object]:
    return {"stored_datatype": FROM_NUMPY[spec.dtype], "scale": spec.scale, "zero_point": spec.zero_point}


def _width(datatype: str) -> int:
    return DTYPES[TO_NUMPY[datatype]]


def _configured(info: TensorInfo) -> dict[str, object]:
    return {"name": info.name, "data_type": f"TYPE_{info.datatype}", "dims": info.shape[1:]}
