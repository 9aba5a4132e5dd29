"""The REST API: routes translate and never decide; every write is a command into the loop's inbox."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from fastapi import APIRouter, FastAPI
from starlette.routing import BaseRoute

from controller.api import (
    answers,
    bindings,
    clients,
    description,
    devices,
    enrol,
    examples,
    files,
    health,
    infer,
    install,
    jobs,
    keys,
    models,
    oip_models,
    oip_repository,
    policies,
    predict,
    release,
    requests,
    rollouts,
    run_views,
    runs,
)
from controller.api.access import Access, Needs
from controller.api.errors import add_error_handlers
from controller.api.guard import Bodies, Guard
from controller.parts import Controller

PREFIX = "/api/v1"
_PARTS = (
    *(description, health, files, models, runs, run_views, rollouts, release),
    *(devices, enrol, jobs, requests, examples, keys, clients, answers, policies, bindings, predict),
)
# These read their body in pieces, up to limits of their own.
_STREAMED = (
    ("PUT", f"{PREFIX}/files"),
    ("POST", f"{PREFIX}/deploy"),
    ("POST", "/v2/models/"),
    ("POST", f"{PREFIX}/models/{{model}}/predict"),
)


class Declared(NamedTuple):
    """A route and what it asks of its callers."""

    method: str
    path: str
    needs: Needs


def add_routes(app: FastAPI, controller: Controller) -> None:
    """Give `app` all routes. `controller` is where they find everything."""
    app.state.controller = controller
    app.state.access = Access(controller)
    # Middleware: what is added last is asked first.
    app.add_middleware(Bodies, limit=controller.settings.limits.json_bytes, own=_STREAMED)
    app.add_middleware(Guard, settings=controller.settings)
    add_error_handlers(app)
    # Routes are looked through in this order: inference first, it is asked most.
    app.include_router(infer.router)
    app.include_router(oip_models.router)
    app.include_router(oip_repository.router)
    app.include_router(health.probes)
    for part in _PARTS:
        app.include_router(part.router, prefix=PREFIX)
    app.include_router(install.router)
    list(declared(app))


def declared(app: FastAPI) -> Iterator[Declared]:
    """Every route of `app` with its needs. Raises TypeError for one that declares none, or more than one."""
    for route, prefix in _flat(app.routes, ""):
        path = prefix + getattr(route, "path", "")
        wanted = [d.dependency for d in getattr(route, "dependencies", ()) if isinstance(d.dependency, Needs)]
        methods = getattr(route, "methods", None)
        if not methods or len(wanted) != 1:
            raise TypeError(f"{path or route} declares {len(wanted)} times what it needs, not once: see access.needs")
        yield from (Declared(method, path, wanted[0]) for method in sorted(methods))


def _flat(routes: Iterable[BaseRoute], prefix: str) -> Iterator[tuple[BaseRoute, str]]:
    """FastAPI keeps included routers as they are; older versions copied their routes."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        if isinstance(inner, APIRouter):
            yield from _flat(inner.routes, prefix + getattr(getattr(route, "include_context", None), "prefix", ""))
        else:
            yield route, prefix
