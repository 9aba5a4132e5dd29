"""The Open Inference Protocol v2: what the server and its models are, and how they are used."""

from __future__ import annotations

from importlib.metadata import version as release_of

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response

from agent.contract import oip_models, stored_numbers
from agent.contract.oip_models import EXTENSIONS, PLATFORM, Metadata, TensorInfo
from agent.contract.tensors import TensorSpec
from controller import reads, records, repository
from controller.api.access import controller_of, needs
from controller.api.errors import reply
from controller.api.models import artifacts_of, find_version, version_number
from controller.parts import Controller

router = APIRouter(prefix="/v2", tags=["inference"])
_TOLD = needs("read", "infer")


@router.get("", dependencies=_TOLD)
async def server() -> Response:
    return reply({"name": "lepta", "version": release_of("lepta"), "extensions": EXTENSIONS})


@router.get("/health/live", dependencies=_TOLD)
async def live() -> Response:
    return reply({"live": True})


@router.get("/health/ready", dependencies=_TOLD)
async def ready(request: Request) -> Response:
    is_ready = controller_of(request).bus.connected
    return reply({"ready": is_ready}, 200 if is_ready else 503)


@router.get("/models/stats", dependencies=_TOLD)
async def all_stats(request: Request) -> Response:
    """Of every model that a device serves, or that was asked since the controller began."""
    controller = controller_of(request)
    counted = controller.fleet.books.statistics
    held = {m.model for known in controller.fleet.devices.all() for m in known.record.reported}
    listed = [
        stats for model in sorted(counted.models() | held) for stats in counted.of(model, _served(request, model))
    ]
    return reply({"model_stats": listed})


@router.get("/models/{model}", dependencies=_TOLD)
async def metadata(request: Request, model: str) -> Response:
    return await _metadata(request, model, "serving")


@router.get("/models/{model}/versions/{version}", dependencies=_TOLD)
async def version_metadata(request: Request, model: str, version: str) -> Response:
    return await _metadata(request, model, str(version_number(version)))


@router.get("/models/{model}/config", dependencies=_TOLD)
async def config(request: Request, model: str) -> Response:
    return await _config(request, model, "serving")


@router.get("/models/{model}/versions/{version}/config", dependencies=_TOLD)
async def version_config(request: Request, model: str, version: str) -> Response:
    return await _config(request, model, str(version_number(version)))


@router.get("/models/{model}/ready", dependencies=_TOLD)
async def model_ready(request: Request, model: str) -> Response:
    served = _served(request, model)
    return reply({"name": model, "ready": bool(served)}, 200 if served else 503)


@router.get("/models/{model}/versions/{version}/ready", dependencies=_TOLD)
async def version_ready(request: Request, model: str, version: str) -> Response:
    is_ready = version_number(version) in _served(request, model)
    return reply({"name": model, "version": version, "ready": is_ready}, 200 if is_ready else 503)


@router.get("/models/{model}/stats", dependencies=_TOLD)
async def model_stats(request: Request, model: str) -> Response:
    """Of each version that a device serves, or that was asked since the controller began."""
    await controller_of(request).store.read(reads.latest_version(model))
    listed = controller_of(request).fleet.books.statistics.of(model, _served(request, model))
    return reply({"model_stats": listed})


@router.get("/models/{model}/versions/{version}/stats", dependencies=_TOLD)
async def version_stats(request: Request, model: str, version: str) -> Response:
    controller = controller_of(request)
    number = (await find_version(controller, model, str(version_number(version)))).version
    listed = controller.fleet.books.statistics.of(model, {number})
    return reply({"model_stats": [stats for stats in listed if stats.version == str(number)]})


def served_or(served: set[int], otherwise: int) -> tuple[str, ...]:
    """The versions that requests are answered by; the one that is meant while there is none."""
    return tuple(map(str, sorted(served or {otherwise})))


def specs_of(artifact: records.Artifact, side: str) -> tuple[TensorSpec, ...]:
    """`side`: inputs or outputs, as the artifact's report has them."""
    return msgspec.convert(artifact.report[side], tuple[TensorSpec, ...])


def tensor_infos(artifacts: list[records.Artifact], side: str) -> tuple[TensorInfo, ...]:
    """A version's inputs or outputs as users send and get them."""
    sides = [specs_of(artifact, side) for artifact in artifacts]
    return oip_models.infos(sides[0] if sides else (), stored_numbers.common(sides) if side == "inputs" else {})


async def _metadata(request: Request, model: str, version: str) -> Response:
    controller = controller_of(request)
    record = await find_version(controller, model, version)
    artifacts = await artifacts_of(controller, record)
    versions = (str(record.version),) if version != "serving" else served_or(_served(request, model), record.version)
    return reply(
        Metadata(
            name=model,
            versions=versions,
            platform=PLATFORM,
            inputs=tensor_infos(artifacts, "inputs"),
            outputs=tensor_infos(artifacts, "outputs"),
        )
    )


async def _config(request: Request, model: str, version: str) -> Response:
    controller = controller_of(request)
    artifacts = await artifacts_of(controller, await find_version(controller, model, version))
    inputs, outputs = tensor_infos(artifacts, "inputs"), tensor_infos(artifacts, "outputs")
    return reply(oip_models.config(model, inputs, outputs, controller.settings.limits.infer_bytes))


def _served(request: Request, model: str) -> set[int]:
    controller: Controller = controller_of(request)
    return repository.serving(model, controller.fleet.devices.all())
