"""How a device joins: a claim is made by a user, and exchanged once by the device for its identity."""

from __future__ import annotations

import asyncio
import secrets

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response

from agent.contract.faults import fault
from controller import records, replies, wheel, writes
from controller.api.access import JOINING, OPEN, OPERATE, caller_of, controller_of, hash_of
from controller.api.errors import reply
from controller.api.schemas import Enrolment, NewCertificate, NewClaim
from controller.broker.port import sends_at_once
from controller.errors import Forbidden, UserError
from controller.identity.authority import Issued, public_key_of
from controller.identity.enrolment import Application
from controller.parts import Controller
from firmware_profiles.profile import Facts

router = APIRouter(tags=["devices"])
_ONCE = {"Cache-Control": "no-store"}


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
        token_hash=hash_of(token),
        expires_at=now + body.expires_s,
        uses_left=body.uses,
        labels=body.labels,
        approve=body.approve,
        hardware=body.hardware,
        created_at=now,
    )
    await controller.store.commit([writes.drop_claims(now), writes.add_claim(claim, limits.claims)])
    return reply(await _told(controller, token, claim.expires_at), 201, _ONCE)


async def _told(controller: Controller, token: str, expires_at: float) -> replies.Claim:
    if not controller.settings.lan:
        return replies.Claim(token=token, expires_at=expires_at, url=controller.url)
    own = await asyncio.to_thread(wheel.current)
    return replies.Claim(
        token=token,
        expires_at=expires_at,
        url=controller.public_url,
        ca_fingerprint=controller.keys.authority.fingerprint,
        wheel_url=controller.public_url + own.path,
        wheel_sha256=own.sha256,
    )


@router.get("/ca", dependencies=OPEN)
async def show_ca(request: Request) -> Response:
    """The controller's CA. Who fetches it compares its SHA-256 with the fingerprint that came with the claim."""
    return reply(replies.Authority(ca=controller_of(request).keys.authority.pem))


@router.post("/enroll", status_code=201, dependencies=OPEN)
async def enroll(request: Request, body: Enrolment) -> Response:
    """Exchange a claim for an identity: a name, a token, a certificate, the way to the broker, and the keys to trust.

    202: the device waits for approval, and asks for its certificate until it has one.
    """
    controller = controller_of(request)
    token = secrets.token_urlsafe(32)
    application = _application(controller, body, token)
    limits, now = controller.settings.limits, controller.fleet.wall()
    joining = writes.join(application, limits.devices, limits.devices_pending, now)
    # Claim and device in one commit: of two who race for a claim one wins, and a crash loses neither.
    [device] = await controller.store.commit([joining])
    fault("enrol.committed")
    device = await controller.fleet.do(lambda tick: controller.fleet.devices.joined(tick, device))
    controller.gate.let_in(device.name)
    return await _answer(controller, device, token, body.csr, 201)


@router.post("/certificate", dependencies=JOINING)
async def renew(request: Request, body: NewCertificate) -> Response:
    """A device's identity with a new certificate; 202 while it waits for approval. Its key stays the enrolled one."""
    controller = controller_of(request)
    device, token = _caller(request)
    if public_key_of(body.csr).pem() != device.public_key:
        raise Forbidden("the certification request has another key than the one that enrolled", "join anew")
    return await _answer(controller, device, token, body.csr, 200)


async def _answer(controller: Controller, device: records.Device, token: str, csr: str, status: int) -> Response:
    if device.state == "pending":
        identity = replies.Identity(agent=device.name, device_token=token, state=device.state, hardware=device.hardware)
        return reply(identity, 202, _ONCE)
    issued = await _issue(controller, device.name, csr) if controller.settings.lan else None
    return reply(_identity(controller, device, token, issued), status, _ONCE)


async def _issue(controller: Controller, name: str, csr: str) -> Issued:
    """Sign and write it down; in the loop's turn, so that a device that is being revoked gets none."""
    now, limits = controller.fleet.wall(), controller.settings.limits
    issued = controller.keys.authority.sign_device(csr, name, now, limits.certificate_s)
    certificate = records.Certificate(serial=issued.serial, subject=name, issued_at=now, expires_at=issued.not_after)
    await controller.store.commit([writes.issue(certificate, limits.certificates, now)])
    await controller.fleet.do(lambda tick: controller.fleet.devices.certified(tick, name, issued.not_after))
    return issued


def _caller(request: Request) -> tuple[records.Device, str]:
    """The device that asks, as the loop knows it, and its token."""
    device = caller_of(request).device
    assert device is not None
    return device, request.headers["authorization"].partition(" ")[2].strip()


def _application(controller: Controller, body: Enrolment, token: str) -> Application:
    try:
        facts = msgspec.convert(body.facts, Facts)
    except msgspec.ValidationError as error:
        raise UserError(f"the enrolment cannot be used: {error}", "update the agent") from error
    return Application(
        claim=hash_of(body.token),
        name=body.name or f"device-{secrets.token_hex(4)}",
        derived=body.derived or body.name is None,
        public_key=public_key_of(body.csr).pem(),
        hardware=body.hardware,
        facts=facts,
        token_hash=hash_of(token),
        broker_user=controller.broker.username or "",
    )


def _identity(controller: Controller, device: records.Device, token: str, issued: Issued | None) -> replies.Identity:
    keys = controller.keys
    return replies.Identity(
        agent=device.name,
        device_token=token,
        state=device.state,
        hardware=device.hardware,
        broker=_broker(controller),
        controller_key=keys.controller.public.pem(),
        release_key=keys.roots.current.release_keys[0],
        root=keys.roots.newest,
        ca=keys.authority.pem if controller.settings.lan else "",
        certificate=issued.pem if issued else "",
        not_before=issued.not_before if issued else 0.0,
        not_after=issued.not_after if issued else 0.0,
    )


def _broker(controller: Controller) -> replies.DeviceBroker:
    broker = controller.broker
    if broker.agents_port:
        # No host: devices follow the controller by name.
        return replies.DeviceBroker(port=broker.agents_port, tls=True, at_once=sends_at_once(broker.kind))
    return replies.DeviceBroker(
        host=broker.host,
        port=broker.port,
        username=broker.username,
        password=broker.password,
        path=broker.path,
        tls=broker.tls,
        public=broker.tls,
        at_once=sends_at_once(broker.kind),
    )
