"""How a device joins: a claim is made by a user, and exchanged once by the device for its identity."""

from __future__ import annotations

import secrets

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response

from agent.contract.signing import PublicKey, SignatureError
from controller import records, replies, writes
from controller.api.access import OPEN, OPERATE, controller_of, hash_of
from controller.api.errors import reply
from controller.api.schemas import Enrolment, NewClaim
from controller.errors import Conflict, UserError
from controller.parts import Controller
from firmware_profiles.profile import Facts

router = APIRouter(tags=["devices"])


@router.post("/claims", status_code=201, dependencies=OPERATE)
async def make_claim(request: Request, body: NewClaim) -> Response:
    """A token that lets devices join. It is told once; only its hash is kept."""
    controller = controller_of(request)
    limits = controller.settings.limits
    if body.uses > limits.claim_uses:
        raise UserError(f"a claim can be used {limits.claim_uses} times at most")
    token = secrets.token_urlsafe(32)
    now = controller.fleet.wall()
    claim = records.Claim(
        token_hash=hash_of(token), expires_at=now + body.expires_s, uses_left=body.uses, created_at=now
    )
    await controller.store.commit([writes.drop_claims(now), writes.put(claim)])
    return reply(replies.Claim(token=token, expires_at=claim.expires_at), 201, {"Cache-Control": "no-store"})


@router.post("/enroll", status_code=201, dependencies=OPEN)
async def enroll(request: Request, body: Enrolment) -> Response:
    """Exchange a claim for an identity: a name, a token, the way to the broker, and the keys to trust."""
    controller = controller_of(request)
    facts, public_key = _checked(body)
    name = body.name or f"device-{secrets.token_hex(4)}"
    known = controller.fleet.devices.get(name)
    if known is not None and known.record.public_key != public_key.pem():
        raise Conflict(f"a device called {name!r} is enrolled already", "choose another name with --name")
    await controller.store.commit([writes.consume_claim(hash_of(body.token), controller.fleet.wall())])
    token = secrets.token_urlsafe(32)
    device = records.Device(
        name=name,
        public_key=public_key.pem(),
        device_token_hash=hash_of(token),
        broker_user=controller.broker.username or "",
        facts=facts,
        labels=facts.labels,
        simulated=bool(facts.overridden),
        enrolled_at=controller.fleet.wall(),
    )
    await controller.fleet.do(lambda tick: controller.fleet.devices.enrol(tick, device))
    return reply(_identity(controller, name, token), 201, {"Cache-Control": "no-store"})


def _checked(body: Enrolment) -> tuple[Facts, PublicKey]:
    try:
        return msgspec.convert(body.facts, Facts), PublicKey.from_pem(body.public_key)
    except (msgspec.ValidationError, SignatureError) as error:
        raise UserError(f"the enrolment cannot be used: {error}", "update the agent") from error


def _identity(controller: Controller, name: str, token: str) -> dict[str, object]:
    broker = controller.broker
    return {
        "agent": name,
        "broker": {
            "host": broker.host,
            "port": broker.port,
            "username": broker.username,
            "password": broker.password,
        },
        "controller_key": controller.keys.controller.public.pem(),
        "release_key": controller.keys.release.public.pem(),
        "device_token": token,
    }
