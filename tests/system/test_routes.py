"""Every route for every kind of caller: let in where that is declared, told 401 or 403 everywhere else, nothing else.

`print` tells the number of cases; pytest shows it with -s.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from fastapi import APIRouter, FastAPI

from controller import records, writes
from controller.api import Declared, add_routes, declared
from controller.api.access import hash_of, needs
from controller.app import Assembly, create_app
from controller.identity.api_keys import SCOPES
from controller.parts import Controller
from controller.settings import Settings
from firmware_profiles.profile import Facts

API = "/api/v1"
OPEN = {"/healthz", "/readyz", f"{API}/openapi.json", f"{API}/enroll", f"{API}/ca", "/install/{filename}"}
FOR_DEVICES = {f"GET {API}/files/{{digest}}", f"POST {API}/certificate"}
STATES = ("pending", "approved", "revoked")
NOT_LET_IN = (401, 403)


class Role(NamedTuple):
    name: str
    token: str

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def expected(self, route: Declared) -> int | None:
        """The status of a refusal; None where it is to be let in. Written down anew, and not taken from the code."""
        scopes = route.needs.scopes
        if scopes == {"open"}:
            return None
        if self.name in ("nobody", "wrong", "expired"):
            return 401
        if self.name in STATES:
            meant = {"pending": {"pending"}, "approved": {"device"}, "revoked": set[str]()}[self.name]
            return None if scopes & meant else 403
        if self.name == "admin":
            return None if scopes - {"device", "pending"} else 403
        return None if self.name in scopes else 403


@asynccontextmanager
async def controller(folder: Path) -> AsyncIterator[tuple[Controller, FastAPI]]:
    assembly = Assembly(Settings(data=folder, broker="embedded"), "http://127.0.0.1:1")
    for state in STATES:
        assembly.store.commit_now(writes.put(_device(state)))
    app = create_app(assembly.controller)
    async with assembly.running() as running:
        yield running, app


def _device(state: str) -> records.Device:
    facts = Facts(machine="x86_64", system="linux", cpus=1, memory_mb=1)
    return records.Device(
        name=f"{state}-1",
        public_key="",
        device_token_hash=hash_of(f"token of {state}"),
        state=state,  # type: ignore[arg-type]
        facts=facts,
        enrolled_at=0.0,
    )


async def _roles(running: Controller) -> list[Role]:
    now = time.time()
    keys = {scope: (await running.api_keys.add(scope, [scope], now + 600, now))[0] for scope in SCOPES}
    expired, _ = await running.api_keys.add("expired", ["admin"], now - 1, now - 2)
    return [
        Role("nobody", ""),
        Role("wrong", keys["admin"][:-1] + "-"),
        Role("expired", expired),
        *(Role(scope, key) for scope, key in keys.items()),
        *(Role(state, f"token of {state}") for state in STATES),
    ]


def _client(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1")


async def _wrong(client: httpx.AsyncClient, route: Declared, role: Role) -> list[str]:
    path = re.sub(r"{[^}]*}", "nothing-1", route.path)
    response = await client.request(route.method, path, json={}, headers=role.headers())
    expected = role.expected(route)
    found: list[str] = []
    if (response.status_code in NOT_LET_IN) != (expected is not None):
        found.append(
            f"{route.method} {path} for {role.name}: {response.status_code}, expected {expected or 'to be let in'}"
        )
    elif expected is not None:
        told = response.json()
        if response.status_code != expected or not told["hint"] or told["who"] != "user":
            found.append(f"{route.method} {path} for {role.name}: {response.status_code} {told}")
    return found


def test_each_route_lets_in_exactly_whom_it_declares(tmp_path: Path) -> None:
    async def check() -> None:
        async with controller(tmp_path) as (running, app), _client(app) as client:
            roles, routes = await _roles(running), list(declared(app))
            wrong = [line for route in routes for role in roles for line in await _wrong(client, route, role)]
            print(f"{len(routes)} routes x {len(roles)} roles = {len(routes) * len(roles)} cases, {len(wrong)} wrong")
            assert wrong == []
            assert len(routes) * len(roles) > 500

    asyncio.run(check())


def test_what_is_open_and_what_is_for_devices_is_known_and_nothing_is_left_out(tmp_path: Path) -> None:
    async def check() -> None:
        async with controller(tmp_path) as (_, app):
            routes = list(declared(app))
            assert {route.path for route in routes if "open" in route.needs.scopes} == OPEN
            devices = {f"{r.method} {r.path}" for r in routes if r.needs.scopes & {"device", "pending"}}
            assert devices == FOR_DEVICES
            documented = {(m.upper(), path) for path, methods in app.openapi()["paths"].items() for m in methods}
            assert documented == {(r.method, r.path) for r in routes} - {("GET", f"{API}/openapi.json")}

    asyncio.run(check())


@pytest.mark.parametrize("count", [0, 2])
def test_a_route_that_does_not_declare_once_what_it_needs_ends_the_start(tmp_path: Path, count: int) -> None:
    async def nothing() -> None:
        """A route."""

    router = APIRouter()
    router.get("/forgotten", dependencies=needs("read") * count)(nothing)

    async def check() -> None:
        async with controller(tmp_path) as (running, _):
            app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
            app.include_router(router, prefix="/x")
            with pytest.raises(TypeError, match="/x/forgotten"):
                add_routes(app, running)

    asyncio.run(check())


def test_a_refusal_names_what_would_do(tmp_path: Path) -> None:
    async def check() -> None:
        async with controller(tmp_path) as (running, app), _client(app) as client:
            roles = {role.name: role for role in await _roles(running)}

            async def told(role: str, path: str = f"{API}/keys") -> str:
                response = await client.get(path, headers=roles[role].headers())
                assert (response.headers.get("WWW-Authenticate") == "Bearer") == (response.status_code == 401)
                return response.text

            assert "may read; this is for keys that may admin" in await told("read")
            assert "read, admin" in await told("infer", f"{API}/devices")
            assert "'expired' has expired" in await told("expired")
            assert "no API key was sent" in await told("nobody")
            assert "the API key is wrong" in await told("wrong")
            assert "was revoked" in await told("revoked")
            assert "lepta device approve pending-1" in await told("pending", f"{API}/files/nothing")
            assert "approved-1 is a device" in await told("approved")

    asyncio.run(check())
