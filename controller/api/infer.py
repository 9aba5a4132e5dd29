"""The Open Inference Protocol v2: metadata, readiness, and inference routed to an agent."""

from __future__ import annotations

import re
import secrets
import zlib
from importlib.metadata import version

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response

from agent.contract.messages import Answer
from agent.contract.tensors import TensorSpec
from controller import oip, replies
from controller.api.access import INFER, caller_of, controller_of, needs
from controller.api.errors import reply
from controller.api.models import artifacts_of, find_version
from controller.errors import BadRequest, LeptaError, TooLarge
from controller.inference import Trace

router = APIRouter(prefix="/v2", tags=["inference"])
_TRACEPARENT = re.compile("[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


@router.get("", dependencies=needs("read", "infer"))
async def server() -> Response:
    return reply({"name": "lepta", "version": version("lepta"), "extensions": ["binary_tensor_data"]})


@router.get("/health/live", dependencies=needs("read", "infer"))
async def live() -> Response:
    return reply({"live": True})


@router.get("/health/ready", dependencies=needs("read", "infer"))
async def ready(request: Request) -> Response:
    controller = controller_of(request)
    is_ready = controller.bus.connected
    return reply({"ready": is_ready}, 200 if is_ready else 503)


@router.get("/models/{model}", dependencies=needs("read", "infer"))
async def metadata(request: Request, model: str) -> Response:
    controller = controller_of(request)
    record = await find_version(controller, model, "serving")
    built = await artifacts_of(controller, record)
    report = built[0].report if built else {"inputs": [], "outputs": []}
    return reply(
        replies.Metadata(
            name=model,
            versions=(str(record.version),),
            platform="tflite_int8",
            inputs=_infos(report["inputs"]),
            outputs=_infos(report["outputs"]),
        )
    )


@router.get("/models/{model}/ready", dependencies=needs("read", "infer"))
async def model_ready(request: Request, model: str) -> Response:
    fleet = controller_of(request).fleet
    serving = [c for c in fleet.candidates(model) if c.online and c.artifact]
    return reply({"name": model, "ready": bool(serving)}, 200 if serving else 503)


@router.post("/models/{model}/infer", dependencies=INFER)
async def infer(request: Request, model: str) -> Response:
    """One request, as JSON or with binary tensors; `parameters` of the answer say who computed it with what."""
    controller = controller_of(request)
    inference = controller.fleet.inference
    trace = inference.begin(model, _trace_id(request.headers.get("traceparent")), caller_of(request).name)
    try:
        body = await _body(request, controller.settings.limits.infer_bytes)
        decoded = oip.decode(body, request.headers.get(oip.HEADER_LENGTH))
        answer = await inference.infer(trace, decoded.tensors, decoded.timeout_s)
        response = _respond(trace, decoded, answer)
    except oip.ProtocolError as error:
        inference.close(trace, "refused")
        raise BadRequest(str(error), "https://kserve.github.io/website, Open Inference Protocol") from error
    except LeptaError:
        inference.close(trace, "failed")
        raise
    inference.close(trace, "answered")
    return response


def _respond(trace: Trace, decoded: oip.Request, answer: Answer) -> Response:
    parameters = {
        "version": answer.version,
        "artifact": answer.artifact,
        "device": trace.device,
        "runtime": answer.runtime,
    }
    extra = {"model_name": trace.model, "model_version": str(answer.version), "id": trace.id, "parameters": parameters}
    body, header = oip.encode(decoded, answer.outputs, extra)
    if header is None:
        return Response(body, media_type="application/json")
    return Response(body, headers={oip.HEADER_LENGTH: str(header)}, media_type="application/octet-stream")


async def _body(request: Request, limit: int) -> bytes:
    """The body, gzip undone, never more than `limit` bytes of it in memory."""
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding not in ("identity", "gzip"):
        raise BadRequest(f"Content-Encoding {encoding[:40]!r} is not understood", "send identity or gzip")
    inflate = zlib.decompressobj(wbits=31) if encoding == "gzip" else None
    body = bytearray()
    async for piece in request.stream():
        try:
            body += inflate.decompress(piece, limit + 1 - len(body)) if inflate else piece
        except zlib.error as error:
            raise BadRequest(f"the body is not gzip: {error}") from error
        if len(body) > limit:
            raise TooLarge(f"an inference request has at most {limit:,} bytes", "send a batch as a job: lepta job run")
    if inflate is not None and not inflate.eof:
        raise BadRequest("the gzip body is cut off")
    return bytes(body)


def _trace_id(traceparent: str | None) -> str:
    """W3C Trace Context: the caller's trace id, or a new one."""
    found = _TRACEPARENT.fullmatch(traceparent or "")
    return found.group(1) if found else secrets.token_hex(16)


def _infos(specs: object) -> tuple[replies.TensorInfo, ...]:
    """Users send and get real numbers; the artifact's own scales turn them into int8 and back on the device."""
    parsed = msgspec.convert(specs, tuple[TensorSpec, ...])
    return tuple(replies.TensorInfo(name=s.name, datatype="FP32", shape=(-1, *s.shape)) for s in parsed)
