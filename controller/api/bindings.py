"""Bindings: which topics of users the devices read, and for which models."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response

from agent.contract import messages
from controller import records
from controller.api.access import OPERATE, READ, controller_of
from controller.api.errors import reply
from controller.api.schemas import NewBinding
from controller.binding_replies import Binding, BoundDevice
from controller.devices import Devices
from controller.errors import BadRequest
from controller.known import Known
from controller.tick import Tick

router = APIRouter(tags=["bindings"])


@router.post("/bindings", status_code=201, dependencies=OPERATE)
async def add_binding(request: Request, body: NewBinding) -> Response:
    """Have devices read a topic, run a model on what comes, and publish what it finds on `predictions/MODEL/DEVICE`.
    It concerns those of the devices that are to run the model."""
    controller = controller_of(request)
    devices, most = controller.fleet.devices, controller.settings.limits.bindings
    binding = records.Binding(
        name=body.name, devices=tuple(dict.fromkeys(body.devices)), spec=_spec(body), created_at=controller.fleet.wall()
    )

    def bind(tick: Tick) -> None:
        for device in binding.devices:
            devices.require(device)
        devices.bindings.admit(binding, most)
        devices.bind(tick, binding)

    await controller.fleet.do(bind)
    await controller.gate.refresh()
    return reply(_shown(devices, binding), 201)


@router.get("/bindings", dependencies=READ)
async def list_bindings(request: Request) -> Response:
    """Every binding, and where it stands on each device that it concerns."""
    devices = controller_of(request).fleet.devices
    return reply([_shown(devices, binding) for binding in devices.bindings.every()])


@router.delete("/bindings/{name}", dependencies=OPERATE)
async def remove_binding(request: Request, name: str) -> Response:
    """From now on nothing is read for it."""
    controller = controller_of(request)
    devices = controller.fleet.devices

    def unbind(tick: Tick) -> records.Binding:
        binding = devices.bindings.require(name)
        devices.bind(tick, binding, bound=False)
        return binding

    removed = await controller.fleet.do(unbind)
    await controller.gate.refresh()
    return reply(_shown(devices, removed))


def _spec(body: NewBinding) -> messages.Binding:
    try:
        return msgspec.convert(body.model_dump(exclude={"devices"}), messages.Binding)
    except msgspec.ValidationError as error:
        raise BadRequest(f"not a binding: {error}") from error


def _shown(devices: Devices, binding: records.Binding) -> Binding:
    concerned = [known for known in devices.all() if binding.concerns(known.name, known.record.desired)]
    states = tuple(_state(known, binding.name) for known in sorted(concerned, key=lambda known: known.name))
    return Binding(
        name=binding.name,
        model=binding.spec.model,
        topic=binding.spec.topic,
        format=binding.spec.format,
        rate=binding.spec.rate,
        keep=binding.spec.keep,
        top_k=binding.spec.top_k,
        preprocessing=binding.spec.preprocessing,
        audio=binding.spec.audio,
        devices=binding.devices,
        created_at=binding.created_at,
        states=states,
        refused=sum(state.state == "refused" for state in states),
    )


def _state(known: Known, name: str) -> BoundDevice:
    if not known.online:
        return BoundDevice(device=known.name, state="offline")
    told = next((state for state in known.bindings if state.name == name), None)
    if told is None:
        return BoundDevice(device=known.name, state="waiting", reason="it has not said anything about it yet")
    return BoundDevice(
        device=known.name,
        state=told.state,
        reason=told.reason,
        received=told.received,
        predicted=told.predicted,
        dropped=told.dropped,
        failed=told.failed,
    )
