"""Is it alive, is it ready, what is it."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter, Request
from fastapi.responses import Response

from controller import reads, records, replies
from controller.api.access import ADMIN, OPEN, READ, controller_of
from controller.api.errors import reply

probes = APIRouter(tags=["health"])
router = APIRouter(tags=["health"])


@probes.get("/healthz", dependencies=OPEN)
async def healthz() -> Response:
    """The process answers."""
    return reply({"status": "ok"})


@probes.get("/readyz", dependencies=OPEN)
async def readyz(request: Request) -> Response:
    """Broker and store work: requests can be served."""
    controller = controller_of(request)
    broker = controller.broker.alive and controller.bus.connected
    await controller.store.read(reads.count(records.Model))
    return reply({"ready": broker, "broker": broker, "store": True}, 200 if broker else 503)


@router.get("/info", dependencies=READ)
async def info(request: Request) -> Response:
    controller = controller_of(request)
    broker = controller.broker
    return reply(
        replies.Info(
            version=version("lepta"),
            url=controller.url,
            boot=controller.boot_id,
            data=str(controller.settings.data),
            broker=replies.Broker(kind=broker.kind, host=broker.host, port=broker.port),
        )
    )


@router.get("/broker", dependencies=ADMIN)
async def broker_access(request: Request) -> Response:
    """How to log in at the broker: for `lepta sub` and other tools of the one who runs the controller."""
    broker = controller_of(request).broker
    access = replies.BrokerAccess(
        host=broker.host, port=broker.port, username=broker.username, password=broker.password
    )
    return reply(access, headers={"Cache-Control": "no-store"})
