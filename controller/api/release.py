"""The release key's side: what waits for its signature, what it signed, and which keys count."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response

from controller import reads, records, writes
from controller.api.access import ADMIN, READ, RELEASE, controller_of
from controller.api.errors import reply
from controller.api.schemas import NewFloor, NewRoot, NewSignatures
from controller.errors import UserError
from controller.parts import Controller
from controller.signing_desk import Floor, Paper, ReleaseKeys, Signed, Unsigned

router = APIRouter(prefix="/release", tags=["release"])


@router.get("/pending", dependencies=READ)
async def show_pending(request: Request) -> Response:
    """The manifests that wait for a signature."""
    controller = controller_of(request)
    waiting = await controller.store.read(reads.every(records.Artifact, signed=False))
    return reply(Paper(waiting=tuple(_unsigned(controller, artifact) for artifact in waiting)))


@router.post("/signatures", dependencies=RELEASE)
async def take_signatures(request: Request, body: NewSignatures) -> Response:
    """Manifests that were signed elsewhere. All of them are taken, or none."""
    controller = controller_of(request)
    signed = [await _taken(controller, each) for each in msgspec.convert(body.model_dump()["signed"], list[Signed])]
    await controller.fleet.do(lambda tick: tick.save(*(writes.put(artifact) for artifact in signed)))
    return reply(Paper(signed=tuple(Signed(**_names(a), envelope="", bundle="") for a in signed)))


@router.post("/floor", dependencies=RELEASE)
async def raise_floor(request: Request, body: NewFloor) -> Response:
    """No device installs an older version of the model any more."""
    controller = controller_of(request)
    model = await controller.store.read(reads.get(records.Model, body.model))
    built = await controller.store.read(reads.every(records.Artifact, model=body.model, version=body.version))
    if not built:
        raise UserError(f"{body.model} version {body.version} has no artifact", f"lepta model show {body.model}")
    lowest = min(artifact.sequence for artifact in built)
    raised = await controller.fleet.do(lambda tick: controller.fleet.devices.raise_floor(tick, model, lowest))
    return reply(Floor(model=raised.name, sequence=raised.floor))


@router.get("/keys", dependencies=READ)
async def show_keys(request: Request) -> Response:
    return reply(_trust(controller_of(request)))


@router.post("/root", dependencies=ADMIN)
async def take_root(request: Request, body: NewRoot) -> Response:
    """The next root document: from now on its release keys count, here and on every device."""
    controller = controller_of(request)
    await controller.fleet.do(lambda tick: controller.fleet.devices.follow(tick, body.envelope))
    return reply(_trust(controller))


def _unsigned(controller: Controller, artifact: records.Artifact) -> Unsigned:
    return Unsigned(**_names(artifact), manifest=controller.catalog.path(artifact.manifest).read_text(encoding="utf-8"))


async def _taken(controller: Controller, signed: Signed) -> records.Artifact:
    found = await controller.store.read(reads.find(records.Artifact, signed.model, signed.version, signed.profile))
    if found is None:
        raise UserError(f"{signed.model} {signed.version} for {signed.profile} is not known here", "lepta model ls")
    return found if found.signed else await controller.signer.accept(found, signed)


def _names(artifact: records.Artifact) -> dict[str, Any]:
    return {"model": artifact.model, "version": artifact.version, "profile": artifact.profile}


def _trust(controller: Controller) -> ReleaseKeys:
    current = controller.keys.roots.current
    return ReleaseKeys(
        version=current.version,
        root_key=current.root_key,
        release_keys=current.release_keys,
        signs_here=controller.signer.signs,
    )
