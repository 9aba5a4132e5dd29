"""The Open Inference Protocol v2: inference, routed to an agent. What is told about models is in `oip_models`."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import NamedTuple

from fastapi import APIRouter, Request
from fastapi.responses import Response

from agent.contract import stored_numbers
from agent.contract.messages import Answer
from agent.contract.tensors import Tensor
from controller import oip, tracing
from controller.api import bodies
from controller.api.access import INFER, Caller, caller_of, controller_of
from controller.api.models import artifacts_of, find_version, version_number
from controller.api.oip_models import specs_of
from controller.api.policies import wait_of
from controller.errors import BadRequest, Busy, LeptaError, Preparing
from controller.parts import Controller
from controller.trace import Trace

router = APIRouter(prefix="/v2", tags=["inference"])
_HEADER_LENGTH = oip.HEADER_LENGTH.lower()


class Call(NamedTuple):
    """A request for an answer, whichever way it came."""

    controller: Controller
    caller: Caller
    headers: Mapping[str, str]
    """Names in lower case."""
    body: Callable[[], Awaitable[bytes]]


@router.post("/models/{model}/infer", dependencies=INFER)
async def infer(request: Request, model: str) -> Response:
    """One request, as JSON or with binary tensors; `parameters` of the answer say who computed it with what."""
    return await answered(call_of(request), model, 0)


@router.post("/models/{model}/versions/{version}/infer", dependencies=INFER)
async def infer_version(request: Request, model: str, version: str) -> Response:
    """The same, answered by this version or not at all."""
    return await answered(call_of(request), model, version_number(version))


def call_of(request: Request) -> Call:
    controller = controller_of(request)
    limit = controller.settings.limits.infer_bytes
    return Call(controller, caller_of(request), request.headers, lambda: bodies.read(request, limit))


async def answered(call: Call, model: str, only: int) -> Response:
    """The answer to a request of the protocol. `only`: the version that may answer, 0 for any. Raises LeptaError."""
    with Traced(call, model, only) as trace:
        decoded = oip.decode(await call.body(), call.headers.get(_HEADER_LENGTH))
        if stored_numbers.possible(decoded.tensors):
            await _check_stored(call.controller, trace, decoded)
        answer = await answer_of(call, trace, decoded.tensors, decoded.timeout_s)
        encoded, header = oip.encode(decoded, answer.outputs, _told(trace, decoded, answer))
        accepted = call.headers.get("accept-encoding", "")
        headers = {"traceparent": trace.traceparent}
        if header is None:
            return await bodies.respond(accepted, encoded, "application/json", headers)
        headers[oip.HEADER_LENGTH] = str(header)
        return await bodies.respond(accepted, encoded, "application/octet-stream", headers)


class Traced:
    """A request from its arrival to its answer; however it ends, its trace is closed. `only`: the one version that may
    answer, 0 for any."""

    def __init__(self, call: Call, model: str, only: int) -> None:
        self._inference = call.controller.fleet.inference
        trace_id = tracing.parse(call.headers.get("traceparent")) or tracing.new_id(random.getrandbits(128))
        self._trace = self._inference.begin(model, trace_id, call.caller.name)
        self._trace.only = only

    def __enter__(self) -> Trace:
        return self._trace

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        trace = self._trace
        if error is None:
            self._inference.close(trace, "answered")
        elif isinstance(error, oip.ProtocolError):
            self._inference.close(trace, "refused")
            raise BadRequest(str(error), "https://kserve.github.io/website, Open Inference Protocol") from error
        elif isinstance(error, LeptaError):
            trace.error = error.message
            self._inference.close(trace, "preparing" if isinstance(error, Preparing) else "failed")
            error.headers |= {"traceparent": trace.traceparent, "Lepta-Request": trace.id}


async def answer_of(call: Call, trace: Trace, tensors: tuple[Tensor, ...], timeout_s: float | None = None) -> Answer:
    """A device's answer within `timeout_s`. Where no device has the version asked for, there may be none: that is told
    first."""
    try:
        prepare_s = wait_of(call.headers.get("prefer"))
        return await call.controller.fleet.inference.infer(trace, tensors, timeout_s, prepare_s)
    except Busy:
        if trace.only:
            await find_version(call.controller, trace.model, str(trace.only))
        raise


async def _check_stored(controller: Controller, trace: Trace, decoded: oip.Request) -> None:
    version = await find_version(controller, trace.model, str(trace.only or "serving"))
    inputs = [specs_of(artifact, "inputs") for artifact in await artifacts_of(controller, version)]
    fault = stored_numbers.fault(decoded.tensors, inputs, trace.only)
    if fault:
        raise oip.ProtocolError(fault)


def _told(trace: Trace, decoded: oip.Request, answer: Answer) -> dict[str, object]:
    """What an answer says beside its tensors. `parameters.request` is for `lepta trace`."""
    parameters = {
        "version": answer.version,
        "artifact": answer.artifact,
        "device": trace.device,
        "runtime": answer.runtime,
        "request": trace.id,
    }
    return {
        "model_name": trace.model,
        "model_version": str(answer.version),
        "id": decoded.id or trace.id,
        "parameters": parameters,
    }
