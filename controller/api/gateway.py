"""Inference requests, which come by the thousand, go past FastAPI: to the same route function, by the same rules.

FastAPI takes each request through its dependencies, exit stacks and a list of routes; for a request that a small model
answers in a fraction of a millisecond that is most of the work. The route itself stands in `api.infer` and is declared
there like any other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import unquote

from fastapi import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from controller.api.access import Access, Needs
from controller.api.errors import respond
from controller.errors import LeptaError

_BEFORE, _AFTER = b"/v2/models/", b"/infer"
Ask = Callable[[Request, str], Awaitable[Response]]


class Gateway:
    def __init__(self, app: ASGIApp, access: Access, needs: Needs, ask: Ask) -> None:
        """`ask` is the route function; `needs` is what it declares."""
        self._app = app
        self._access = access
        self._needs = needs
        self._ask = ask

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        model = _model(scope)
        if model is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            request.state.caller = self._access.admit(request, self._needs)
            response = await self._ask(request, model)
        except LeptaError as error:
            response = respond(error)
        await response(scope, receive, send)


def _model(scope: Scope) -> str | None:
    """The model that this asks; None if it is not an inference request by the short path."""
    if scope["type"] != "http" or scope["method"] != "POST":
        return None
    path: bytes = scope["raw_path"]
    if not path.startswith(_BEFORE) or not path.endswith(_AFTER):
        return None
    name = path[len(_BEFORE) : -len(_AFTER)]
    return unquote(name.decode("latin-1")) if name and b"/" not in name else None
