"""The tensors of a request or shard, from wherever they came: in the message as they are or packed, or in a blob."""

from __future__ import annotations

import hashlib
from pathlib import Path

from agent import frames
from agent.contract.messages import MessageError, decode_tensors
from agent.contract.packing import PackingError, unpack
from agent.contract.tensors import Tensor

_MOST_BYTES = 64 * 1024 * 1024


class Damaged(Exception):
    """A blob whose bytes are not what its digest says."""

    def __init__(self, digest: str) -> None:
        super().__init__(f"the bytes of blob {digest[:12]} were changed on disk")
        self.digest = digest


def read_verified(path: str, digest: str) -> bytes:
    """The bytes of a blob, hashed here: what is used is exactly what was named. Raises Damaged."""
    content = Path(path).read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise Damaged(digest)
    return content


def tensors_of(order: frames.Compute | frames.Compare) -> tuple[Tensor, ...]:
    """Raises Damaged, MessageError, OSError."""
    if order.blob:
        return decode_tensors(read_verified(order.blob, order.digest))
    packed = order.packed
    if packed is None:
        return order.inputs
    if packed.size > _MOST_BYTES:
        raise MessageError(f"{packed.size} bytes of inputs are packed, {_MOST_BYTES} are allowed")
    try:
        return decode_tensors(unpack(packed.packing, packed.data, packed.size))
    except PackingError as error:
        raise MessageError(str(error)) from error
