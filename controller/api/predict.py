"""The friendly route: a picture, an array or JSON in, labels and scores out."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import numpy as np
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from starlette.datastructures import UploadFile
from starlette.types import Message, Receive

from agent.contract.golden import Array
from agent.contract.manifest import Preprocessing
from agent.contract.messages import Answer
from agent.contract.oip_models import TensorInfo
from agent.contract.tensors import Tensor, check
from controller import classes, inputs, records
from controller.api import bodies
from controller.api.access import INFER
from controller.api.infer import Call, Traced, answer_of, call_of
from controller.api.models import artifacts_of, find_version
from controller.api.oip_models import tensor_infos
from controller.errors import BadRequest, Busy
from controller.parts import Controller
from controller.trace import Trace

router = APIRouter(tags=["inference"])
# Files of one request, one row each.
_FILES = 64
# A version may follow another one while a request is on its way; then it is prepared anew.
_TRIES = 3
_NPY = b"\x93NUMPY"


class _Asked(NamedTuple):
    """A part of a request: its content, and how errors name it."""

    content: bytes
    called: str


class _Meant(NamedTuple):
    """What a version says about itself."""

    record: records.Version
    infos: tuple[TensorInfo, ...]

    @property
    def form(self) -> tuple[tuple[TensorInfo, ...], Preprocessing | None]:
        """What inputs are prepared by."""
        return self.infos, self.record.preprocessing


@router.post("/models/{model}/predict", dependencies=INFER)
async def predict(request: Request, model: str, top: Annotated[int, Query(ge=1, le=1000)] = 5) -> Response:
    """The body is a picture (png, jpg), an .npy file or JSON (an array, or arrays by name), or a form with such files.
    Answers with the `top` classes of each row by the version's labels, or with the numbers of a model without classes.
    """
    call = call_of(request)
    with Traced(call, model, 0) as trace:
        answer, meant = await _answered(call, trace, await _asked(request, await call.body()))
        outputs = {tensor.name: _array(tensor) for tensor in answer.outputs}
        told = {
            "model": model,
            "version": answer.version,
            "artifact": answer.artifact,
            "device": trace.device,
            "runtime": answer.runtime,
            "request": trace.id,
            **classes.told(outputs, meant.record.labels, top),
        }
        accepted = call.headers.get("accept-encoding", "")
        return await bodies.respond(
            accepted, classes.encoded(told), "application/json", {"traceparent": trace.traceparent}
        )


async def _answered(call: Call, trace: Trace, asked: Sequence[_Asked]) -> tuple[Answer, _Meant]:
    """An answer, with the version that gave it: its labels count, and its preprocessing must have been used."""
    controller = call.controller
    meant = await _meant(controller, trace.model, "serving")
    for _ in range(_TRIES):
        tensors = await _prepared(controller, asked, meant)
        answer = await answer_of(call, trace, tensors)
        if answer.version == meant.record.version:
            return answer, meant
        prepared_for, meant = meant, await _meant(controller, trace.model, str(answer.version))
        if meant.form == prepared_for.form:
            return answer, meant
    raise Busy(f"the versions of {trace.model} follow each other too quickly", "try again in a second")


async def _meant(controller: Controller, model: str, version: str) -> _Meant:
    record = await find_version(controller, model, version)
    return _Meant(record, tensor_infos(await artifacts_of(controller, record), "inputs"))


async def _prepared(controller: Controller, asked: Sequence[_Asked], meant: _Meant) -> tuple[Tensor, ...]:
    if not meant.infos:
        raise Busy(f"version {meant.record.version} of {meant.record.model} has no artifact", "lepta run ls")
    async with controller.pictures:
        named = await asyncio.to_thread(_rows, asked, meant.infos, meant.record.preprocessing)
    tensors = tuple(_tensor(name, array) for name, array in named.items())
    for tensor in tensors:
        check(tensor)
    return tensors


def _rows(asked: Sequence[_Asked], infos: tuple[TensorInfo, ...], how: Preprocessing | None) -> dict[str, Array]:
    """The parts of a request as rows of the model's inputs, in their order."""
    parts = [_read(part, infos, how) for part in asked]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _read(part: _Asked, infos: tuple[TensorInfo, ...], how: Preprocessing | None) -> dict[str, Array]:
    """By what is in it: programs name the type of what they send wrongly, or not at all."""
    if part.content.startswith(_NPY):
        return inputs.from_npy(io.BytesIO(part.content), infos, part.called)
    if part.content.lstrip()[:1] in (b"{", b"["):
        return inputs.from_json(part.content, infos, part.called)
    return inputs.from_picture(io.BytesIO(part.content), infos, how, part.called)


async def _asked(request: Request, body: bytes) -> list[_Asked]:
    if not body:
        raise BadRequest("the body is empty", "send a picture: curl --data-binary @picture.png")
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return [_Asked(body, "the body")]
    async with Request(request.scope, _once(body)).form(max_files=_FILES, max_fields=_FILES) as form:
        parts = [(name, part) for name, part in form.multi_items() if isinstance(part, UploadFile)]
        if not parts:
            raise BadRequest("the form has no file", "send one: curl -F file=@picture.png")
        return [_Asked(await part.read(), part.filename or name) for name, part in parts]


def _once(body: bytes) -> Receive:
    """A body that was read before, for those who read it again."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _tensor(name: str, array: Array) -> Tensor:
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return Tensor(name, array.dtype.name, array.shape, little.tobytes())


def _array(tensor: Tensor) -> Array:
    return np.frombuffer(tensor.data, np.dtype(tensor.dtype).newbyteorder("<")).reshape(tensor.shape)
