"""What a user's program publishes, as the Open Inference Protocol has it."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

Short = Annotated[str, Meta(max_length=200)]


class UserTensor(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor as the Open Inference Protocol writes it in JSON; in MessagePack its data may be raw."""

    name: Short
    shape: tuple[int, ...]
    datatype: Short = "FP32"
    data: list[object] | bytes = []
    """Numbers; or bytes, little-endian in C order. JSON has those in base64."""


class UserInfer(msgspec.Struct, frozen=True, kw_only=True):
    """What a user publishes on `models/{model}/infer`; the answer goes to `clients/{client}/answer`."""

    client: Short
    inputs: tuple[UserTensor, ...]
    id: Short = ""


def is_json(payload: bytes) -> bool:
    """Is it an object of JSON? One of MessagePack never begins like that."""
    return payload.lstrip()[:1] == b"{"
