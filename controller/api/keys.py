"""API keys: made, listed, removed."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from controller import records, replies
from controller.api.access import ADMIN, controller_of
from controller.api.errors import reply
from controller.api.schemas import NewKey

router = APIRouter(tags=["keys"])


@router.post("/keys", status_code=201, dependencies=ADMIN)
async def make_key(request: Request, body: NewKey) -> Response:
    """A new key. It is told once; only its hash is kept."""
    controller = controller_of(request)
    now = controller.fleet.wall()
    expires_at = None if body.expires_s is None else now + body.expires_s
    key, record = await controller.api_keys.add(body.name, body.scopes, expires_at, now)
    return reply(_reply(record, key), 201, {"Cache-Control": "no-store"})


@router.get("/keys", dependencies=ADMIN)
async def list_keys(request: Request) -> Response:
    return reply([_reply(record) for record in controller_of(request).api_keys.every()])


@router.delete("/keys/{key_id}", dependencies=ADMIN)
async def remove_key(request: Request, key_id: str) -> Response:
    """Void from now on."""
    controller = controller_of(request)
    return reply(_reply(await controller.api_keys.remove(key_id, controller.fleet.wall())))


def _reply(record: records.ApiKey, key: str = "") -> replies.ApiKey:
    return replies.ApiKey(
        id=record.id,
        name=record.name,
        scopes=record.scopes,
        created_at=record.created_at,
        expires_at=record.expires_at,
        last_used=record.last_used,
        key=key,
    )
