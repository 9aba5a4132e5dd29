"""The fleet, as it is, and who belongs to it."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from controller import reads, records, replies, views
from controller.api import events
from controller.api.access import OPERATE, READ, controller_of
from controller.api.errors import reply
from controller.api.schemas import LabelChange
from controller.drain_replies import Duty
from controller.parts import Controller

router = APIRouter(tags=["devices"])


@router.get("/devices", dependencies=READ)
async def list_devices(request: Request) -> Response:
    controller = controller_of(request)
    known = sorted(controller.fleet.devices.all(), key=lambda k: k.name)
    return reply([views.device(k, controller.profiles, []) for k in known])


@router.get("/devices/{name}", dependencies=READ)
async def show_device(request: Request, name: str) -> Response:
    """One device with its facts, the profiles it fits and why, its models and its latest swaps."""
    return await _shown(controller_of(request), name)


@router.post("/devices/{name}/approve", dependencies=OPERATE)
async def approve_device(request: Request, name: str) -> Response:
    """Let a device in that waits; it has its certificate when it asks the next time."""
    controller = controller_of(request)
    await controller.fleet.do(lambda tick: controller.fleet.devices.approve(tick, name))
    return await _shown(controller, name)


@router.post("/devices/{name}/labels", dependencies=OPERATE)
async def label_device(request: Request, name: str, body: LabelChange) -> Response:
    """Change labels; those that the device says itself come back when they are removed here."""
    controller = controller_of(request)
    most = controller.settings.limits.labels
    await controller.fleet.do(lambda tick: controller.fleet.devices.label(tick, name, body.put, body.remove, most))
    return await _shown(controller, name)


@router.post("/devices/{name}/cordon", dependencies=OPERATE)
async def cordon_device(request: Request, name: str, force: bool = False) -> Response:
    """Nothing new is sent there: no request, no shard. What it holds, it computes. `force`: even where no other device
    serves its models. It stays cordoned over restarts."""
    fleet = controller_of(request).fleet
    return reply(await fleet.do(lambda tick: fleet.drains.cordon(tick, name, move=False, force=force)))


@router.post("/devices/{name}/drain", dependencies=OPERATE)
async def drain_device(request: Request, name: str, force: bool = False) -> Response:
    """Cordon it, and compute elsewhere what waits there. Its state is `drained` once it can be switched off."""
    fleet = controller_of(request).fleet
    return reply(await fleet.do(lambda tick: fleet.drains.cordon(tick, name, move=True, force=force)))


@router.post("/devices/{name}/uncordon", dependencies=OPERATE)
async def uncordon_device(request: Request, name: str) -> Response:
    """Give it work again."""
    fleet = controller_of(request).fleet
    return reply(await fleet.do(lambda tick: fleet.drains.uncordon(tick, name)))


@router.get("/devices/{name}/duty", dependencies=READ)
async def device_duty(request: Request, name: str) -> Response:
    """Does it get work, what does it hold, can it be switched off?"""
    return reply(controller_of(request).fleet.drains.duty(name))


@router.get("/devices/{name}/duty/events", dependencies=READ)
async def follow_duty(request: Request, name: str) -> Response:
    """Server-sent events while it is drained: `progress`, then one `end`, which says that it can be switched off."""
    controller = controller_of(request)
    drains, beat_s = controller.fleet.drains, controller.settings.limits.watch_beat_s

    async def now() -> Duty:
        return drains.duty(name)

    return await events.stream(drains.watchers, name, now, beat_s, f"/api/v1/devices/{name}/duty")


@router.post("/devices/{name}/revoke", dependencies=OPERATE)
async def revoke_device(request: Request, name: str, claim: bool = False) -> Response:
    """Shut a device out, for good. It stays in the list. `claim`: what it joined with is void too."""
    controller = controller_of(request)
    return reply(await _revoke(controller, name, claim))


@router.delete("/devices/{name}", dependencies=OPERATE)
async def remove_device(request: Request, name: str, claim: bool = False) -> Response:
    """Shut a device out and forget it: another one may have its name. `claim`: what it joined with is void too."""
    controller = controller_of(request)
    revoked = await _revoke(controller, name, claim)
    await controller.fleet.do(lambda tick: controller.fleet.devices.forget(tick, name))
    return reply(revoked)


async def _revoke(controller: Controller, name: str, void_claim: bool) -> replies.Revoked:
    device = controller.fleet.devices.require(name).record
    await controller.fleet.do(lambda tick: controller.fleet.devices.revoke(tick, name, void_claim=void_claim))
    await controller.gate.shut_out(name)
    claim = await controller.store.read(reads.find(records.Claim, device.claim))
    good = claim is not None and claim.expires_at > controller.fleet.wall()
    uses = claim.uses_left if claim is not None and good else 0
    return replies.Revoked(device=name, by_broker=controller.gate.knows_everybody, claim_uses=uses)


async def _shown(controller: Controller, name: str) -> Response:
    known = controller.fleet.devices.require(name)
    most = controller.settings.limits.swaps_kept
    swaps = await controller.store.read(reads.every(records.Swap, newest=True, limit=most, device=name))
    return reply(views.device(known, controller.profiles, swaps))
