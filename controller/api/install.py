"""Lepta's own code, for devices that join. It is open: what they install is named by its hash in the line to paste."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import Response

from controller import wheel
from controller.api.access import OPEN
from controller.errors import NotFound

router = APIRouter(tags=["devices"])


@router.get("/install/{filename}", dependencies=OPEN)
async def get_wheel(request: Request, filename: str) -> Response:
    """The wheel of the Lepta that this controller runs; `lepta device add` prints its name and hash."""
    own = await asyncio.to_thread(wheel.current)
    if filename != own.name:
        raise NotFound(
            f"there is no {filename[:100]!r} here, there is {own.name}", "run the line of `lepta device add`"
        )
    headers = {"ETag": f'"{own.sha256}"', "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(own.content, media_type="application/octet-stream", headers=headers)
