"""Examples to begin with."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from controller.api.access import READ, RELEASE, controller_of
from controller.api.errors import reply
from controller.api.schemas import DigitsExample

router = APIRouter(tags=["examples"])


@router.post("/examples/digits", status_code=202, dependencies=RELEASE)
async def make_digits(request: Request, body: DigitsExample) -> Response:
    """Train a small CNN on real handwritten digits; the files come by `GET /files/{digest}`."""
    example = controller_of(request).examples.start("digits", body.model_dump())
    return reply(example, 202, {"Location": f"/api/v1/examples/{example.id}"})


@router.get("/examples/{example_id}", dependencies=READ)
async def show_example(request: Request, example_id: str) -> Response:
    return reply(controller_of(request).examples.get(example_id))
