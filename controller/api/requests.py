"""The log of inference requests: who answered, and how long each step took."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from controller import reads, records, views
from controller.api.access import controller_of
from controller.api.errors import reply

router = APIRouter(tags=["requests"])


@router.get("/requests")
async def list_requests(request: Request, model: str | None = None, limit: int = 50) -> Response:
    controller = controller_of(request)
    equal = {"model": model} if model is not None else {}
    most = max(1, min(limit, controller.settings.limits.list_rows))
    found = await controller.store.read(reads.every(records.Request, newest=True, limit=most, **equal))
    return reply([views.request(r) for r in found])


@router.get("/requests/{request_id}")
async def show_request(request: Request, request_id: str) -> Response:
    controller = controller_of(request)
    found = controller.fleet.unsaved_request(request_id)
    if found is None:
        found = await controller.store.read(reads.get(records.Request, request_id))
    return reply(views.request(found))
