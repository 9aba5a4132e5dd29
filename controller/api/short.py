"""The short way of inference requests, past uvicorn and FastAPI: to the same function as the route, by the same rules.

They come by the thousand, and a small model answers in a fraction of a millisecond: to take each through an ASGI scope,
middlewares, dependencies and a list of routes would be most of the work. What is not plainly such a request, whole and
of moderate size, goes the usual way.
"""

from __future__ import annotations

import functools
import logging
import re
from urllib.parse import unquote

from fastapi.responses import Response

from agent.contract.http1 import Request
from controller.api.access import Access, Needs
from controller.api.errors import broken, respond
from controller.api.guard import foreign, hosts_of
from controller.api.infer import Call, answered
from controller.errors import LeptaError
from controller.parts import Controller

log = logging.getLogger("lepta.api")

_PATH = re.compile(r"/v2/models/([^/]+)/infer")


class ShortWay:
    def __init__(self, controller: Controller, access: Access, needs: Needs) -> None:
        """`needs` is what the route declares."""
        self._controller = controller
        self._access = access
        self._needs = needs
        self._hosts = hosts_of(controller.settings)

    @staticmethod
    def takes(request: Request) -> bool:
        """Is it an inference request of the plain kind?"""
        return (
            request.method == "POST"
            and _model_in(request.path) is not None
            and "content-encoding" not in request.headers
        )

    async def answer(self, request: Request, peer: str) -> Response:
        """`peer`: address of the caller."""
        headers = request.headers
        model = _model_in(request.path)
        assert model is not None

        async def body() -> bytes:
            return request.body

        try:
            if self._hosts is not None and (refusal := foreign(headers, self._hosts)) is not None:
                raise refusal
            caller = self._access.admit(peer, headers.get("authorization", ""), self._needs)
            call = Call(self._controller, caller, headers, body)
            return await answered(call, model, 0)
        except LeptaError as error:
            return respond(error)
        except Exception:
            log.exception("POST %s broke", request.path)
            return broken()


@functools.lru_cache(1024)
def _model_in(path: str) -> str | None:
    """Which model a path asks for an answer; None where it is another path."""
    found = _PATH.fullmatch(path)
    return unquote(found[1]) if found is not None else None
