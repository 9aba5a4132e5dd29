"""Models and their versions."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response

from agent.contract.manifest import Preprocessing
from agent.contract.topics import TopicError, check_name
from controller import reads, records, replies, uploads, views, writes
from controller.api.access import READ, RELEASE, controller_of
from controller.api.errors import reply
from controller.api.schemas import NewImport, NewVersion
from controller.errors import NotFound, UserError
from controller.on_demand import wanted_version
from controller.parts import Controller

router = APIRouter(tags=["models"])


@router.get("/models", dependencies=READ)
async def list_models(request: Request) -> Response:
    controller = controller_of(request)
    models = await controller.store.read(reads.every(records.Model))
    return reply([await _model(controller, m.name) for m in models])


@router.get("/models/{model}", dependencies=READ)
async def show_model(request: Request, model: str) -> Response:
    controller = controller_of(request)
    await controller.store.read(reads.latest_version(model))
    return reply(await _model(controller, model))


@router.get("/models/{model}/versions/{version}", dependencies=READ)
async def show_version(request: Request, model: str, version: str) -> Response:
    """`version` is a number, `latest`, or `serving` (what the fleet is to run)."""
    controller = controller_of(request)
    record = await find_version(controller, model, version)
    return reply(views.version(record, await artifacts_of(controller, record)))


@router.post("/models/{model}/versions", status_code=201, dependencies=RELEASE)
async def add_version(request: Request, model: str, body: NewVersion) -> Response:
    controller = controller_of(request)
    _check_new(controller, model, source=body.source, data=body.data)
    data_name = body.data_name
    if body.data is not None:
        data_name = uploads.check_data(controller.catalog.path(body.data), data_name or "data")
    record = await new_version(
        controller,
        model,
        source=body.source,
        # Whether its code may run is asked when a run is.
        source_name=uploads.check_model(controller.catalog.path(body.source), body.source_name, trust=True),
        data=body.data,
        data_name=data_name,
        labels=tuple(body.labels),
        preprocessing=Preprocessing(**body.preprocessing.model_dump()) if body.preprocessing else None,
    )
    return reply(views.version(record, []), 201)


@router.post("/imports", status_code=201, dependencies=RELEASE)
async def import_version(request: Request, body: NewImport) -> Response:
    """A version with artifacts that an optimizer made elsewhere; its files were put before."""
    controller = controller_of(request)
    source = body.report.get("source")
    if not isinstance(source, dict) or not isinstance(source.get("file"), str):
        raise UserError("the report does not name its source", "use the report.json that lepta optimize wrote")
    digest = body.files.get(source["file"], "")
    if digest != source.get("digest"):
        raise UserError(
            f"{source['file']} was not uploaded, or is not what the report describes", "lepta model push DIR"
        )
    record = await new_version(
        controller,
        body.model,
        source=digest,
        source_name=source["file"],
        data=None,
        labels=tuple(body.report.get("labels") or ()),
        preprocessing=_preprocessing(body.report.get("preprocessing")),
    )
    artifacts = await controller.signer.sign(record, body.report, None)
    await controller.fleet.do(lambda tick: tick.save(*(writes.put(a) for a in artifacts)))
    return reply(views.version(record, artifacts), 201)


async def new_version(
    controller: Controller, model: str, *, source: str, data: str | None, **rest: Any
) -> records.Version:
    """Save a version whose files are in the catalog; raises UserError for an unusable name, NotFound naming a file that
    is not there."""
    _check_new(controller, model, source=source, data=data)
    version = records.Version(
        model=model, version=0, source=source, data=data, created_at=controller.fleet.wall(), **rest
    )
    [saved] = await controller.store.commit([writes.add_version(version)])
    result: records.Version = saved
    return result


def _check_new(controller: Controller, model: str, **files: str | None) -> None:
    """Raise UserError for an unusable name, NotFound for a digest, by what it is, that was not uploaded."""
    try:
        check_name(model, "model name")
    except TopicError as error:
        raise UserError(str(error), "choose one with --name") from error
    for what, digest in files.items():
        if digest is not None and controller.catalog.locate(digest) is None:
            raise NotFound(f"the {what} file {digest[:12]} was not uploaded", "PUT it to /api/v1/files first")


async def find_version(controller: Controller, model: str, version: str) -> records.Version:
    latest = await controller.store.read(reads.latest_version(model))
    if version == "latest":
        return latest
    number = wanted_version(controller.fleet.devices.all(), model) if version == "serving" else _number(version)
    if version == "serving" and number is None:
        return latest
    if number is None:
        raise UserError(f"version {version[:40]!r} is neither a number nor latest nor serving")
    return await controller.store.read(reads.get(records.Version, model, number))


async def artifacts_of(controller: Controller, version: records.Version) -> list[records.Artifact]:
    return await controller.store.read(reads.every(records.Artifact, model=version.model, version=version.version))


async def _model(controller: Controller, model: str) -> replies.Model:
    versions = await controller.store.read(reads.every(records.Version, model=model))
    numbers = tuple(v.version for v in versions)
    serving = wanted_version(controller.fleet.devices.all(), model)
    return replies.Model(name=model, versions=numbers, latest=max(numbers, default=None), serving=serving)


def version_number(text: str) -> int:
    """A version in a path. Raises NotFound for what is no number above 0."""
    number = _number(text)
    if not number:
        raise NotFound(f"version {text[:40]!r} is no number", "versions are 1, 2, 3, ...")
    return number


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 10 else None


def _preprocessing(value: Any) -> Preprocessing | None:
    try:
        return msgspec.convert(value, Preprocessing | None)
    except msgspec.ValidationError as error:
        raise UserError(f"the report's preprocessing cannot be used: {error}") from error
