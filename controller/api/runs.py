"""Runs of the optimizer, and the one POST that does it all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from fastapi import APIRouter, Form, Request, UploadFile
from fastapi.responses import Response

from agent.contract.manifest import FileRef, Preprocessing
from controller import reads, recipes, records, terms, uploads, views
from controller.api.access import READ, RELEASE, caller_of, controller_of
from controller.api.errors import reply
from controller.api.models import new_version
from controller.api.schemas import NewRun
from controller.errors import Forbidden, UserError
from controller.parts import Controller
from controller.placement import needed_profiles
from controller.runs import Wanted
from controller.terms import Terms

router = APIRouter(tags=["runs"])
_PIECE = 1024 * 1024


@router.post("/runs", status_code=202, dependencies=RELEASE)
async def start_run(request: Request, body: NewRun) -> Response:
    """Optimize a version for some profiles, by default those that the fleet's devices call for."""
    controller = controller_of(request)
    version = await controller.store.read(reads.get(records.Version, body.model, body.version))
    if version.source_name.endswith(".h5") and not body.trust:
        raise UserError(f"{version.source_name} can run code when it is loaded", "send trust: true, or --trust")
    wanted = Wanted(
        profiles=_checked_profiles(controller, body.profiles),
        strict=body.strict,
        deploy=body.deploy,
        recipe=recipes.check(body.recipe, controller.settings.limits.recipe_bytes),
        compare=body.compare,
        trust=_trusted(request, body.trust),
        terms=terms.read(body.terms, Terms),
    )
    return await _queue(controller, version, wanted)


@router.post("/deploy", status_code=202, dependencies=RELEASE)
async def deploy(
    request: Request,
    model: UploadFile,
    data: UploadFile,
    name: str = Form(""),
    labels: str = Form(""),
    preprocessing: str = Form(""),
    profiles: str = Form(""),
    strict: bool = Form(False),
    recipe: str = Form(""),
    compare: bool | None = Form(None),
    trust: bool = Form(False),
    asked: str = Form("", alias="terms"),
) -> Response:
    """Upload, optimize, release, roll out: follow the run that this answers with, then its rollout."""
    controller = controller_of(request)
    wanted = Wanted(
        profiles=_checked_profiles(controller, _listed("profiles", profiles) or None),
        strict=strict,
        deploy=True,
        recipe=recipes.check(recipe, controller.settings.limits.recipe_bytes),
        compare=compare,
        trust=_trusted(request, trust),
        terms=_terms(asked),
    )
    source, source_name = await _store_model(controller, model, trust)
    arrays, data_name = await _store_data(controller, data)
    version = await new_version(
        controller,
        name or Path(source_name).stem,
        source=source.digest,
        source_name=source_name,
        data=arrays.digest,
        data_name=data_name,
        labels=tuple(_listed("labels", labels)),
        preprocessing=_preprocessing(preprocessing),
    )
    return await _queue(controller, version, wanted)


@router.get("/runs", dependencies=READ)
async def list_runs(request: Request, limit: int = 50) -> Response:
    controller = controller_of(request)
    most = min(limit, controller.settings.limits.list_rows)
    runs = await controller.store.read(reads.every(records.Run, newest=True, limit=most))
    return reply([views.run(controller.fleet.runs.progress(r), []) for r in runs])


@router.get("/runs/{run_id}", dependencies=READ)
async def show_run(request: Request, run_id: str) -> Response:
    controller = controller_of(request)
    run = controller.fleet.runs.progress(await controller.store.read(reads.get(records.Run, run_id)))
    built = await controller.store.read(reads.every(records.Artifact, model=run.model, version=run.version, run=run.id))
    return reply(views.run(run, built))


@router.post("/runs/{run_id}/cancel", dependencies=RELEASE)
async def cancel_run(request: Request, run_id: str) -> Response:
    controller = controller_of(request)
    run = await controller.fleet.do(lambda tick: controller.fleet.runs.cancel(tick, run_id))
    return reply(views.run(run, []))


async def _queue(controller: Controller, version: records.Version, wanted: Wanted) -> Response:
    run = await controller.fleet.do(lambda tick: controller.fleet.runs.queue(tick, version, wanted))
    return reply(views.run(run, []), 202, {"Location": f"/api/v1/runs/{run.id}"})


def _trusted(request: Request, trust: bool) -> bool:
    """What a model's file does when it is loaded is done as the user who runs the controller."""
    caller = caller_of(request)
    if trust and "admin" not in caller.scopes:
        raise Forbidden(
            f"trust lets a model's code run on the controller's machine; the key {caller.name!r} may not allow that",
            "a key with the scope admin may; or save the model as .keras, which needs no trust",
        )
    return trust


def _checked_profiles(controller: Controller, profiles: Sequence[str] | None) -> tuple[str, ...]:
    if profiles is None:
        found = needed_profiles(controller.fleet.devices.facts(), controller.profiles)
        if not found:
            raise UserError(
                "no device is enrolled, so it is open which profiles to build for",
                "name them with --profile, or add a device: lepta device add",
            )
        return tuple(found)
    unknown = sorted(set(profiles) - set(controller.profiles))
    if unknown:
        raise UserError(
            f"no profile is called {', '.join(unknown)}", f"there are {', '.join(sorted(controller.profiles))}"
        )
    return tuple(sorted(set(profiles)))


async def _store_model(controller: Controller, upload: UploadFile, trust: bool) -> tuple[FileRef, str]:
    file = await _store(controller, upload)
    name = upload.filename or "model"
    return file, await asyncio.to_thread(uploads.check_model, controller.catalog.path(file.digest), name, trust=trust)


async def _store_data(controller: Controller, upload: UploadFile) -> tuple[FileRef, str]:
    file = await _store(controller, upload)
    name = upload.filename or "data"
    return file, await asyncio.to_thread(uploads.check_data, controller.catalog.path(file.digest), name)


async def _store(controller: Controller, upload: UploadFile) -> FileRef:
    async def pieces() -> AsyncIterator[bytes]:
        while piece := await upload.read(_PIECE):
            yield piece

    return await controller.catalog.put(pieces(), controller.settings.limits.upload_bytes)


def _listed(field: str, text: str) -> list[str]:
    if not text:
        return []
    try:
        return msgspec.json.decode(text, type=list[str])
    except msgspec.DecodeError as error:
        raise UserError(
            f"{field} must be a JSON list of strings: {error}", f"{field}={json.dumps(['a', 'b'])}"
        ) from error


def _terms(text: str) -> Terms:
    if not text:
        return Terms()
    try:
        raw = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise UserError(f"terms must be a JSON object: {error}", '{"watch": {"answers": 500}}') from error
    return terms.read(raw, Terms)


def _preprocessing(text: str) -> Preprocessing | None:
    if not text:
        return None
    try:
        value: Any = msgspec.json.decode(text, type=Preprocessing)
    except msgspec.DecodeError as error:
        raise UserError(f"preprocessing cannot be used: {error}", '{"height": 28, "width": 28}') from error
    result: Preprocessing = value
    return result
