"""The REST API: routes translate and never decide; every write is a command into the loop's inbox."""

from __future__ import annotations

from fastapi import FastAPI

from controller.api import (
    devices,
    enrol,
    examples,
    files,
    health,
    infer,
    install,
    jobs,
    models,
    requests,
    rollouts,
    runs,
)
from controller.api.access import Guard
from controller.api.errors import add_error_handlers
from controller.parts import Controller

PREFIX = "/api/v1"


def add_routes(app: FastAPI, controller: Controller) -> None:
    """Give `app` all routes. `controller` is where they find everything."""
    app.state.controller = controller
    app.add_middleware(Guard, settings=controller.settings)
    add_error_handlers(app)
    app.include_router(health.probes)
    for part in (health, files, models, runs, rollouts, devices, enrol, jobs, requests, examples):
        app.include_router(part.router, prefix=PREFIX)
    app.include_router(infer.router)
    app.include_router(install.router)
