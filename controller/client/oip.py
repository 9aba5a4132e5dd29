"""The asking side of the Open Inference Protocol with binary tensors: numpy arrays to a body, an answer to arrays.

Source of the format: see `oip`, which is the answering side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np

from agent.contract.golden import Array
from agent.contract.tensors import DTYPES
from controller.oip import HEADER_LENGTH, datatype

__all__ = ["HEADER_LENGTH", "Answer", "AnswerError", "decode_answer", "encode_request", "json_request"]

_NUMPY = {datatype(dtype): dtype for dtype in DTYPES}


class AnswerError(ValueError):
    """Bytes that are no answer of the protocol."""


class Answer(NamedTuple):
    """`outputs` by name, each (rows, ...). `id` is the request's: `lepta trace ID` shows its way."""

    outputs: dict[str, Array]
    id: str
    version: int
    artifact: str
    device: str
    runtime: str


class _Output(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class _Header(msgspec.Struct):
    outputs: list[_Output]
    id: str = ""
    parameters: dict[str, Any] = {}


_HEADER = msgspec.json.Decoder(_Header)


def encode_request(inputs: Mapping[str, Array]) -> tuple[bytes, int]:
    """A binary request for arrays of shape (rows, ...), and the length of its JSON header."""
    raw = [_little_endian(array) for array in inputs.values()]
    described = [
        _described(name, array, parameters={"binary_data_size": len(content)})
        for (name, array), content in zip(inputs.items(), raw, strict=True)
    ]
    header = msgspec.json.encode({"inputs": described, "parameters": {"binary_data_output": True}})
    return header + b"".join(raw), len(header)


def json_request(inputs: Mapping[str, Array], **extra: object) -> bytes:
    """The same request as pure JSON, for people, curl and MQTT; `extra` joins the top level."""
    described = [_described(name, array, data=array.ravel().tolist()) for name, array in inputs.items()]
    return msgspec.json.encode({**extra, "inputs": described})


def decode_answer(body: bytes, header_length: str | None) -> Answer:
    """Read a response's body; `header_length` is the value of HEADER_LENGTH, None for pure JSON. Raises AnswerError."""
    try:
        size = len(body) if header_length is None else int(header_length)
        header = _HEADER.decode(body[:size])
        outputs, at = {}, size
        for output in header.outputs:
            length = int(output.parameters.get("binary_data_size", 0))
            outputs[output.name] = _array(output, body[at : at + length])
            at += length
        told = header.parameters
        version = int(told.get("version", 0))
    except (msgspec.DecodeError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise AnswerError(f"not an inference answer: {error}") from error
    who = (str(told.get(key, "")) for key in ("artifact", "device", "runtime"))
    return Answer(outputs, header.id, version, *who)


def _described(name: str, array: Array, **more: object) -> dict[str, object]:
    return {"name": name, "shape": list(array.shape), "datatype": datatype(array.dtype.name), **more}


def _little_endian(array: Array) -> bytes:
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


def _array(output: _Output, raw: bytes) -> Array:
    dtype = np.dtype(_NUMPY[output.datatype]).newbyteorder("<")
    if output.data is None:
        return np.frombuffer(raw, dtype).reshape(output.shape)
    # null stands for the NaN that JSON lacks.
    return np.asarray([np.nan if x is None else x for x in output.data]).astype(dtype).reshape(output.shape)
