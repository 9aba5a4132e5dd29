"""Users' programs at the broker: made, listed, removed."""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from fastapi.responses import Response

from controller import records, replies
from controller.api.access import ADMIN, controller_of
from controller.api.errors import reply
from controller.api.schemas import NewClient
from controller.identity.clients import Clients
from controller.parts import Controller

router = APIRouter(tags=["clients"])


@router.post("/clients", status_code=201, dependencies=ADMIN)
async def add_client(request: Request, body: NewClient) -> Response:
    """Credentials for a program: it may ask every model, and read its own answers and the predictions granted. The
    password is told once; only the broker's hash of it is kept."""
    controller = controller_of(request)
    client, password = await _clients(controller).add(
        body.name, body.predictions, controller.fleet.wall(), body.publishes
    )
    return reply(_reply(controller, client, password), 201, {"Cache-Control": "no-store"})


@router.get("/clients", dependencies=ADMIN)
async def list_clients(request: Request) -> Response:
    controller = controller_of(request)
    return reply([_reply(controller, client) for client in await _clients(controller).every()])


@router.delete("/clients/{name}", dependencies=ADMIN)
async def remove_client(request: Request, name: str) -> Response:
    """Its password is void from now on."""
    controller = controller_of(request)
    return reply(_reply(controller, await _clients(controller).remove(name)))


def _clients(controller: Controller) -> Clients:
    limits = controller.settings.limits
    return Clients(controller.store, controller.gate, port=controller.broker.clients_port, most=limits.clients)


def _reply(controller: Controller, client: records.Client, password: str = "") -> replies.BrokerClient:
    return replies.BrokerClient(
        name=client.name,
        predictions=client.predictions,
        publishes=client.publishes,
        created_at=client.created_at,
        host=urlsplit(controller.public_url).hostname or "",
        port=controller.broker.clients_port,
        password=password,
        ca=controller.keys.authority.pem,
    )
