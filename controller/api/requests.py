"""The log of inference requests: who answered, and how long each step took."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import Response

from controller import request_rows, views
from controller.api.access import READ, controller_of
from controller.api.errors import reply
from controller.errors import NotFound
from controller.pages import Search

router = APIRouter(tags=["requests"])
# The log is written in batches: a trace that is asked for at once is waited for, in tenths of a second.
_PATIENCE = 30


@router.get("/requests", dependencies=READ)
async def list_requests(
    request: Request, model: str | None = None, trace_id: str | None = None, limit: int = 50
) -> Response:
    controller = controller_of(request)
    most = max(1, min(limit, controller.settings.limits.list_rows))
    found = await controller.store.read(request_rows.page(Search(model=model, trace_id=trace_id), most))
    return reply([views.request(r) for r in found])


@router.get("/requests/{request_id}", dependencies=READ)
async def show_request(request: Request, request_id: str) -> Response:
    controller = controller_of(request)
    found = await controller.store.read(request_rows.find(request_id))
    for _ in range(_PATIENCE):
        if found is not None or not controller.fleet.books.may_hold(request_id):
            break
        await asyncio.sleep(0.1)
        found = await controller.store.read(request_rows.find(request_id))
    if found is None:
        raise NotFound(f"no request is called {request_id[:80]!r}", "the answer's id names it; the oldest are dropped")
    return reply(views.request(found))
