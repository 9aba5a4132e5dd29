"""Inside a worker: questions of local programs to tensors, and tensors to answers."""

from __future__ import annotations

import zlib

from agent import frames
from agent.contract import oip
from agent.contract.tensors import Tensor

MAX_INFLATED = 64 << 20


class Desk:
    """Reads and writes for one model."""

    def __init__(self, start: frames.Start, runtime: str) -> None:
        who = {"version": start.version, "artifact": start.digest, "device": start.device, "runtime": runtime}
        self._told = {"model_name": start.model, "model_version": str(start.version), "parameters": who}

    def read(self, question: frames.Question) -> oip.Request:
        """Raises oip.ProtocolError."""
        body = _inflate(question.body) if question.gzip else question.body
        return oip.decode(body, question.header_length)

    def write(self, request: oip.Request, outputs: tuple[Tensor, ...]) -> tuple[bytes, int]:
        """The body, and the length of its JSON where raw tensors follow, else 0. Raises oip.ProtocolError."""
        told = {**self._told, "id": request.id} if request.id else self._told
        body, header_length = oip.encode(request, outputs, told)
        return body, header_length or 0


def _inflate(body: bytes) -> bytes:
    inflate = zlib.decompressobj(wbits=31)
    try:
        whole = inflate.decompress(body, MAX_INFLATED)
    except zlib.error as error:
        raise oip.ProtocolError(f"the body is not gzip: {error}") from error
    if inflate.unconsumed_tail:
        raise oip.ProtocolError(f"the gzip body holds more than {MAX_INFLATED:,} bytes")
    if not inflate.eof:
        raise oip.ProtocolError("the gzip body is cut off")
    return whole
