"""Stored answers, found by model, device, version, state, trace and time."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response

from controller import answer_rows
from controller.answer_replies import AnswerPage, StoredAnswer
from controller.api.access import READ, controller_of
from controller.api.errors import reply
from controller.entries import Answer
from controller.errors import BadRequest, NotFound
from controller.pages import Position, Search

router = APIRouter(tags=["answers"])
_PLAIN = tuple(f.name for f in msgspec.structs.fields(StoredAnswer) if f.name not in ("outputs", "inputs"))


@router.get("/answers", dependencies=READ)
async def list_answers(
    request: Request,
    model: str | None = None,
    device: str | None = None,
    version: int | None = None,
    state: str | None = None,
    trace_id: str | None = None,
    since: float | None = None,
    until: float | None = None,
    limit: int = 50,
    after: str | None = None,
) -> Response:
    """Newest first. `since` and `until` in seconds since 1970; `after` is the `next` of the page before."""
    controller = controller_of(request)
    search = Search(
        model=model, device=device, version=version, state=state, trace_id=trace_id, since=since, until=until
    )
    most = max(1, min(limit, controller.settings.limits.list_rows))
    found = await controller.store.read(answer_rows.page(search, most + 1, _position(after)))
    page = found[:most]
    behind = _token(page[-1]) if len(found) > most else None
    answers = tuple(_reply(answer) for answer in page)
    return reply(AnswerPage(answers=answers, next=behind, dropped=controller.fleet.books.dropped))


@router.get("/answers/{answer_id}", dependencies=READ)
async def show_answer(request: Request, answer_id: str) -> Response:
    found = await controller_of(request).store.read(answer_rows.find(answer_id))
    if found is None:
        raise NotFound(f"no answer of {answer_id[:80]!r} is stored", "it takes a second; or by policy it is not kept")
    return reply(_reply(found, outputs=found.outputs, inputs=found.inputs))


def _reply(answer: Answer, **tensors: Any) -> StoredAnswer:
    return StoredAnswer(**{name: getattr(answer, name) for name in _PLAIN}, **tensors)


def _token(last: Answer) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(Position(last.received_at, last.id))).decode()


def _position(token: str | None) -> Position | None:
    if token is None:
        return None
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(token), type=Position)
    except (binascii.Error, ValueError) as error:
        raise BadRequest("`after` is not the `next` of a page", "begin again without it") from error
