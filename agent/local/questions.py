"""Inside a worker: questions of local programs to tensors, and tensors to answers."""

from __future__ import annotations

import zlib

from agent import frames
from agent.contract import oip, stored_numbers
from agent.contract.oip_names import CODINGS
from agent.contract.tensors import Tensor

MAX_UNPACKED = 64 << 20
_HEADERS = 64


class Desk:
    """Reads and writes for one model."""

    def __init__(self, start: frames.Start, runtime: str) -> None:
        who = {"version": start.version, "artifact": start.digest, "device": start.device, "runtime": runtime}
        self._start = start
        self._headers: dict[tuple[tuple[str, str, tuple[int, ...]], ...], bytes] = {}
        """The JSON of raw answers by what they hold: most have the same, byte by byte."""
        self._told = {"model_name": start.model, "model_version": str(start.version), "parameters": who}

    def read(self, question: frames.Question) -> oip.Request:
        """Raises oip.ProtocolError."""
        body = question.body if question.coding == "identity" else _unpacked(question.body, question.coding)
        return oip.decode(body, question.header_length)

    def check(self, question: frames.Question, request: oip.Request) -> None:
        """Raises oip.ProtocolError where this version may not answer: another one is asked for, which served when the
        question came, or numbers as another one stores them may be meant."""
        if question.version not in (0, self._start.version):
            raise oip.ProtocolError(f"version {question.version} serves here no more, {self._start.version} does")
        if not question.version and stored_numbers.possible(request.tensors):
            fault = stored_numbers.fault(request.tensors, [self._start.inputs], 0)
            if fault:
                raise oip.ProtocolError(fault)

    def write(self, request: oip.Request, outputs: tuple[Tensor, ...]) -> tuple[bytes, int]:
        """The body, and the length of its JSON where raw tensors follow, else 0. Raises oip.ProtocolError."""
        if request.id or not oip.plainly_raw(request):
            told = {**self._told, "id": request.id} if request.id else self._told
            body, header_length = oip.encode(request, outputs, told)
            return body, header_length or 0
        alike = tuple([(tensor.name, tensor.dtype, tensor.shape) for tensor in outputs])
        header = self._headers.get(alike)
        if header is None:
            body, header_length = oip.encode(request, outputs, self._told)
            header = body[:header_length]
            if len(self._headers) < _HEADERS:
                self._headers[alike] = header
        return b"".join([header, *[tensor.data for tensor in outputs]]), len(header)


def _unpacked(body: bytes, coding: str) -> bytes:
    unpack = zlib.decompressobj(wbits=CODINGS[coding])
    try:
        whole = unpack.decompress(body, MAX_UNPACKED)
    except zlib.error as error:
        raise oip.ProtocolError(f"the body is not {coding}: {error}") from error
    if unpack.unconsumed_tail:
        raise oip.ProtocolError(f"the {coding} body holds more than {MAX_UNPACKED:,} bytes")
    if not unpack.eof:
        raise oip.ProtocolError(f"the {coding} body is cut off")
    return whole
