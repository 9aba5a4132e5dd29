"""The fleet, as it is."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from controller import reads, records, views
from controller.api.access import READ, controller_of
from controller.api.errors import reply

router = APIRouter(tags=["devices"])


@router.get("/devices", dependencies=READ)
async def list_devices(request: Request) -> Response:
    controller = controller_of(request)
    known = sorted(controller.fleet.devices.all(), key=lambda k: k.name)
    return reply([views.device(k, controller.profiles, []) for k in known])


@router.get("/devices/{name}", dependencies=READ)
async def show_device(request: Request, name: str) -> Response:
    """One device with its facts, the profiles it fits and why, its models and its latest swaps."""
    controller = controller_of(request)
    known = controller.fleet.devices.require(name)
    most = controller.settings.limits.swaps_kept
    swaps = await controller.store.read(reads.every(records.Swap, newest=True, limit=most, device=name))
    return reply(views.device(known, controller.profiles, swaps))
