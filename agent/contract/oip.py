"""The Open Inference Protocol v2 (KServe / Triton REST): requests and responses, as JSON or with binary tensors.

Source: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol and Triton's "binary tensor
data extension": the JSON header comes first, its length stands in `Inference-Header-Content-Length`, raw little-endian
tensors follow in the order of the header. Raw tensors are never turned into Python numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import numpy as np

from agent.contract import tensors as wire
from agent.contract.oip_names import FROM_NUMPY, HEADER_LENGTH, TO_NUMPY
from agent.contract.tensors import Tensor
from agent.contract.user import UserTensor


class ProtocolError(ValueError):
    """A request that is not of the protocol; the message says what to send instead."""


class _InputHeader(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: Any = None
    parameters: dict[str, Any] = {}


class _OutputHeader(msgspec.Struct):
    name: str
    parameters: dict[str, Any] = {}


class _Header(msgspec.Struct):
    inputs: list[_InputHeader]
    id: str = ""
    outputs: list[_OutputHeader] = []
    parameters: dict[str, Any] = {}


_HEADER = msgspec.json.Decoder(_Header)
_SHORT_HEADER = 1024
"""Longer ones are read each time."""


class _Raw(NamedTuple):
    """A raw tensor: all but its bytes, and where these lie behind the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class _Told(NamedTuple):
    """What a header says."""

    id: str
    inputs: tuple[_InputHeader, ...]
    outputs: tuple[str, ...]
    binary: Mapping[str, bool]
    binary_by_default: bool
    timeout_s: float | None
    raw: tuple[_Raw, ...] = ()
    """All inputs, where all follow as raw tensors and fit together."""


class Request(msgspec.Struct, frozen=True):
    """A decoded request. `outputs`: names asked for, empty for all; `binary`: per name whether to answer raw."""

    id: str
    tensors: tuple[Tensor, ...]
    outputs: tuple[str, ...]
    binary: Mapping[str, bool]
    binary_by_default: bool
    timeout_s: float | None = None
    """How long the caller waits: parameter `timeout`, which counts microseconds as in Triton."""

    def wants_binary(self, name: str) -> bool:
        return self.binary.get(name, self.binary_by_default)


def decode(body: bytes, header_length: str | None) -> Request:
    """Read a request body; `header_length` is the value of HEADER_LENGTH, None for pure JSON. Raises ProtocolError."""
    size = _header_size(body, header_length)
    if size <= _SHORT_HEADER and size < len(body):
        told = _read_again(body[:size])
    else:
        told = _read(memoryview(body)[:size])
    if told.raw and len(body) - size == told.raw[-1].end:
        whole = tuple([Tensor(r.name, r.dtype, r.shape, body[size + r.start : size + r.end]) for r in told.raw])
        return Request(told.id, whole, told.outputs, told.binary, told.binary_by_default, told.timeout_s)
    raw = memoryview(body)[size:]
    tensors = []
    for item in told.inputs:
        tensor, raw = _take(item, raw)
        tensors.append(tensor)
    if raw:
        raise ProtocolError(f"{len(raw)} bytes follow the last binary tensor; check binary_data_size")
    return Request(told.id, _checked(tensors), told.outputs, told.binary, told.binary_by_default, told.timeout_s)


def _read(header: bytes | memoryview) -> _Told:
    try:
        found = _HEADER.decode(header)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ProtocolError(f"not an inference request: {error}") from error
    _refuse_others(found)
    binary = {o.name: bool(o.parameters["binary_data"]) for o in found.outputs if "binary_data" in o.parameters}
    return _Told(
        found.id,
        tuple(found.inputs),
        tuple(o.name for o in found.outputs),
        binary,
        bool(found.parameters.get("binary_data_output", False)),
        _timeout_s(found.parameters),
        _plan(found.inputs),
    )


_read_again = lru_cache(64)(_read)
"""What raw tensors are sent with is the same, byte by byte, in request after request of a caller."""


def _plan(inputs: list[_InputHeader]) -> tuple[_Raw, ...]:
    """Where raw tensors lie; nothing where not all inputs are raw, or something is wrong: then they are looked at one
    by one, and refused by name."""
    found: list[_Raw] = []
    for item in inputs:
        size, dtype, shape = item.parameters.get("binary_data_size"), TO_NUMPY.get(item.datatype), tuple(item.shape)
        start = found[-1].end if found else 0
        if dtype is None or not isinstance(size, int) or size != wire.size_of(dtype, shape):
            return ()
        found.append(_Raw(item.name, dtype, shape, start, start + size))
    alike = len({raw.name for raw in found}) == len(found) and len({raw.shape[0] for raw in found}) == 1
    return tuple(found) if alike else ()


def from_user(inputs: tuple[UserTensor, ...]) -> tuple[Tensor, ...]:
    """The tensors of a request that came as JSON over MQTT. Raises ProtocolError."""
    return _checked([_from_json(t.name, list(t.shape), t.datatype, t.data) for t in inputs])


def plainly_raw(request: Request) -> bool:
    """Are all outputs wanted, and all of them raw, so that answers differ in nothing but their numbers and id?"""
    return request.binary_by_default and not request.binary and not request.outputs


def encode(request: Request, tensors: tuple[Tensor, ...], extra: dict[str, Any]) -> tuple[bytes, int | None]:
    """Write a response; `extra` joins the top level (model_name, id, parameters). Returns the body and, where raw
    tensors follow, the length of the JSON header."""
    if tensors and plainly_raw(request):
        return _all_raw(tensors, extra)
    chosen = [t for t in tensors if t.name in request.outputs] if request.outputs else tensors
    unknown = set(request.outputs) - {t.name for t in chosen}
    if unknown:
        names = ", ".join(t.name for t in tensors)
        raise ProtocolError(f"no output is called {', '.join(sorted(unknown))}; this model has {names}")
    if chosen and all(request.wants_binary(t.name) for t in chosen):
        return _all_raw(chosen, extra)
    outputs: list[dict[str, Any]] = []
    raw: list[bytes] = []
    for tensor in chosen:
        if request.wants_binary(tensor.name):
            outputs.append(_raw_item(tensor.name, tensor.dtype, tensor.shape, len(tensor.data)))
            raw.append(tensor.data)
        else:
            outputs.append({**_item(tensor.name, tensor.dtype, tensor.shape), "data": _numbers(tensor)})
    header = msgspec.json.encode({**extra, "outputs": outputs})
    return (header + b"".join(raw), len(header)) if raw else (header, None)


def _all_raw(tensors: Sequence[Tensor], extra: dict[str, Any]) -> tuple[bytes, int]:
    listed = _list_raw(tuple([(t.name, t.dtype, t.shape, len(t.data)) for t in tensors]))
    header = msgspec.json.encode({**extra, "outputs": listed})
    return b"".join([header, *[t.data for t in tensors]]), len(header)


def _item(name: str, dtype: str, shape: tuple[int, ...]) -> dict[str, Any]:
    return {"name": name, "datatype": FROM_NUMPY[dtype], "shape": shape}


def _raw_item(name: str, dtype: str, shape: tuple[int, ...], size: int) -> dict[str, Any]:
    return {**_item(name, dtype, shape), "parameters": {"binary_data_size": size}}


@lru_cache(256)
def _list_raw(told: tuple[tuple[str, str, tuple[int, ...], int], ...]) -> msgspec.Raw:
    """A model's answers differ in their numbers only."""
    return msgspec.Raw(msgspec.json.encode([_raw_item(*each) for each in told]))


def datatype(dtype: str) -> str:
    """The protocol's name of a numpy dtype."""
    return FROM_NUMPY[dtype]


def _refuse_others(header: _Header) -> None:
    """What other servers do and we do not would else go unnoticed."""
    told = [(item.name, item.parameters) for item in header.inputs]
    for name, parameters in told + [(item.name, item.parameters) for item in header.outputs]:
        if "shared_memory_region" in parameters:
            raise ProtocolError(f"{name!r} is in shared memory, which is not supported: send it along")
        if parameters.get("classification"):
            raise ProtocolError(f"{name!r}: no classification; ask /api/v1/models/M/predict for labels")


def _timeout_s(parameters: dict[str, Any]) -> float | None:
    asked = parameters.get("timeout")
    if asked is None:
        return None
    if isinstance(asked, bool) or not isinstance(asked, int | float) or not asked > 0:
        raise ProtocolError(f"parameter timeout is {asked!r}; it takes a number of microseconds above 0")
    return asked / 1e6


def _header_size(body: bytes, header_length: str | None) -> int:
    if header_length is None:
        return len(body)
    size = int(header_length) if header_length.isdecimal() and len(header_length) <= 15 else len(body) + 1
    if size > len(body):
        raise ProtocolError(f"{HEADER_LENGTH}: {header_length[:20]!r} does not fit a body of {len(body)} bytes")
    return size


def _take(item: _InputHeader, raw: memoryview) -> tuple[Tensor, memoryview]:
    size = item.parameters.get("binary_data_size")
    if size is None:
        return _from_json(item.name, item.shape, item.datatype, item.data), raw
    if not isinstance(size, int) or not 0 <= size <= len(raw):
        raise ProtocolError(f"input {item.name!r}: binary_data_size {size!r}, but {len(raw)} bytes are left")
    tensor = Tensor(item.name, _numpy_name(item.name, item.datatype), tuple(item.shape), bytes(raw[:size]))
    return tensor, raw[size:]


def _from_json(name: str, shape: list[int], protocol_type: str, data: Any) -> Tensor:
    dtype = _numpy_name(name, protocol_type)
    if data is None:
        raise ProtocolError(f"input {name!r} has neither data nor binary_data_size")
    try:
        array = _exactly(np.asarray(data), dtype).reshape(shape)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise ProtocolError(f"input {name!r}: data does not fill {protocol_type} {shape}: {error}") from error
    return Tensor(name, dtype, tuple(shape), array.astype(array.dtype.newbyteorder("<")).tobytes())


def _exactly(array: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    """As `dtype`; what would become another number is refused. null is the NaN that JSON lacks."""
    if array.dtype == object and np.dtype(dtype).kind == "f":
        array = array.astype(dtype)
    if array.size and array.dtype.kind not in "fiub":
        raise ValueError("it holds something else than numbers")
    with np.errstate(over="raise"):
        wanted = array.astype(dtype)
    if wanted.dtype.kind in "iu" and not np.array_equal(wanted, array):
        raise ValueError("a number does not fit the type")
    return wanted


def _numpy_name(name: str, protocol_type: str) -> str:
    try:
        return TO_NUMPY[protocol_type]
    except KeyError:
        raise ProtocolError(f"input {name!r} has datatype {protocol_type!r}; allowed: {', '.join(TO_NUMPY)}") from None


def _checked(tensors: list[Tensor]) -> tuple[Tensor, ...]:
    names = [tensor.name for tensor in tensors]
    if len(set(names)) < len(names):
        raise ProtocolError(f"an input comes twice: {', '.join(names)}")
    try:
        wire.rows_of(tuple(tensors))
    except wire.TensorError as error:
        raise ProtocolError(str(error)) from error
    return tuple(tensors)


def _numbers(tensor: Tensor) -> list[Any]:
    """Flat numbers in row-major order; NaN and infinities, which JSON lacks, become null."""
    array = np.frombuffer(tensor.data, dtype=tensor.dtype)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return [float(x) if np.isfinite(x) else None for x in array]
    numbers: list[Any] = array.tolist()
    return numbers
