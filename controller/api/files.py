"""Files by content: uploads of users, downloads of users and agents."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response

from controller import replies
from controller.api.access import controller_of, needs
from controller.api.errors import reply

router = APIRouter(tags=["files"])


@router.put("/files", status_code=201, dependencies=needs("infer", "release"))
async def put_file(request: Request) -> Response:
    """Store the body; answers with its SHA-256."""
    controller = controller_of(request)
    file = await controller.catalog.put(request.stream(), controller.settings.limits.upload_bytes)
    return reply(replies.StoredFile(digest=file.digest, size=file.size), 201)


@router.get("/files/{digest}", dependencies=needs("read", "device"))
async def get_file(request: Request, digest: str) -> Response:
    """The file with this SHA-256; understands Range, so that an interrupted fetch goes on where it stopped."""
    path = await asyncio.to_thread(controller_of(request).catalog.path, digest)
    headers = {"ETag": f'"{digest}"', "Cache-Control": "private, immutable, max-age=31536000"}
    return FileResponse(path, media_type="application/octet-stream", headers=headers)
