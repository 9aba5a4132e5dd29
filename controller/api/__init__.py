"""The REST API: routes translate and never decide; every write is a command into the loop's inbox."""

from __future__ import annotations

from fastapi import APIRouter, Depends, FastAPI

from controller.api import devices, enrol, examples, files, health, infer, jobs, models, requests, rollouts, runs
from controller.api.access import Guard, require_token
from controller.api.errors import add_error_handlers
from controller.parts import Controller

PREFIX = "/api/v1"


def add_routes(app: FastAPI, controller: Controller) -> None:
    """Give `app` all routes. `controller` is where they find everything."""
    app.state.controller = controller
    app.add_middleware(Guard, settings=controller.settings)
    add_error_handlers(app)
    app.include_router(health.open_router)
    # Enrolment proves itself by a claim; files also go to agents, by their own tokens.
    app.include_router(enrol.open_router, prefix=PREFIX)
    app.include_router(files.download_router, prefix=PREFIX)
    guarded = APIRouter(dependencies=[Depends(require_token)])
    for part in (health, files, models, runs, rollouts, devices, enrol, jobs, requests, examples):
        guarded.include_router(part.router, prefix=PREFIX)
    guarded.include_router(infer.router)
    app.include_router(guarded)
