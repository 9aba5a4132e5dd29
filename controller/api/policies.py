"""What requests for a model may begin, how far that is, and what is kept of its answers."""

from __future__ import annotations

import contextlib
import re

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response

from controller import reads, records
from controller.answer_replies import ModelPolicy, Preparation
from controller.api.access import ADMIN, INFER, READ, controller_of, needs
from controller.api.errors import reply
from controller.api.schemas import NewPolicy
from controller.demand import Refuse, Wait
from controller.errors import Busy, NotFound, Preparing
from controller.parts import Controller
from controller.policy import Override

router = APIRouter(tags=["policies"])
_WAIT = re.compile(r"wait=(\d{1,6})")


@router.get("/models/{model}/policy", dependencies=READ)
async def show_policy(request: Request, model: str) -> Response:
    controller = controller_of(request)
    await _known(controller, model)
    return reply(_policy(controller, model))


@router.put("/models/{model}/policy", dependencies=ADMIN)
async def set_policy(request: Request, model: str, body: NewPolicy) -> Response:
    """In place of what the model said before; what is null is as the controller has it."""
    controller = controller_of(request)
    await _known(controller, model)
    override = msgspec.convert(body.model_dump(), Override)
    await controller.fleet.do(lambda tick: controller.fleet.policies.set(tick, model, override))
    return reply(_policy(controller, model))


@router.get("/models/{model}/preparation", dependencies=needs("read", "infer"))
async def show_preparation(request: Request, model: str) -> Response:
    """Where a 202 points to. Once it is `ready`, repeat the request."""
    return reply(await _preparation(controller_of(request), model))


@router.post("/models/{model}/preparation", status_code=202, dependencies=INFER)
async def prepare(request: Request, model: str) -> Response:
    """Begin what a request would begin, without one."""
    controller = controller_of(request)
    if controller.on_demand.may(model):
        # Why it cannot be, or what it waits for: the resource says it better.
        with contextlib.suppress(Busy, Preparing):
            await controller.on_demand.ready(model, 0.0)
    return reply(await _preparation(controller, model), 202)


def wait_of(prefer: str | None) -> float | None:
    """How long a caller wants to wait, by the header `Prefer` (RFC 7240): `respond-async`, `wait=SECONDS`; None where
    he does not say."""
    if not prefer:
        return None
    for part in prefer.split(","):
        word = part.strip().lower()
        if found := _WAIT.fullmatch(word):
            return float(found.group(1))
        if word == "respond-async" and "wait=" not in prefer.lower():
            return 0.0
    return None


async def _known(controller: Controller, model: str) -> None:
    if await controller.store.read(reads.find(records.Model, model)) is None:
        raise NotFound(f"no model is called {model[:80]!r}", "lepta model ls")


def _policy(controller: Controller, model: str) -> ModelPolicy:
    policies = controller.fleet.policies
    return ModelPolicy(model=model, override=policies.override(model), policy=policies.of(model))


async def _preparation(controller: Controller, model: str) -> Preparation:
    situation, decision = await controller.on_demand.look(model)
    version = situation.version
    match decision:
        case Wait(kind, id):
            follow = f"/api/v1/{kind}s/{id}" if id else ""
            return Preparation(model=model, version=version, state="preparing", step=kind, follow=follow)
        case Refuse(reason, hint):
            return Preparation(model=model, version=version, state="failed", error=reason, hint=hint)
    if situation.ready:
        return Preparation(model=model, version=version, state="ready")
    state = "preparing" if controller.on_demand.at_work(model) else "idle"
    return msgspec.convert({"model": model, "version": version, "state": state}, Preparation)
