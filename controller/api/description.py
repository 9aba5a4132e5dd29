"""The description of this API, for people and for programs that make clients from it."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from controller.api.access import OPEN
from controller.api.errors import reply

router = APIRouter(include_in_schema=False)


@router.get("/openapi.json", dependencies=OPEN)
async def describe(request: Request) -> Response:
    return reply(request.app.openapi())
