"""Rates and sizes at the API: who asks too often waits as long as he is told, and nobody else; big bodies end early."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from controller import records, writes
from controller.api.access import hash_of
from controller.app import Assembly, create_app
from controller.parts import Controller
from controller.settings import Limits, Settings
from firmware_profiles.profile import Facts

API = "/api/v1"
LIMITS = Limits(key_rate=(20.0, 30), device_rate=(2.0, 3), stranger_rate=(5.0, 10), rates_kept=50, json_bytes=2000)
FACTS = Facts(machine="x86_64", system="linux", cpus=1, memory_mb=1)


def _run(folder: Path, check: Callable[[Controller, FastAPI], Awaitable[None]]) -> None:
    async def whole() -> None:
        assembly = Assembly(Settings(data=folder, broker="embedded", limits=LIMITS), "http://127.0.0.1:1")
        device = records.Device(
            name="pi-1", public_key="", device_token_hash=hash_of("pi"), facts=FACTS, enrolled_at=0.0
        )
        assembly.store.commit_now(writes.put(device))
        app = create_app(assembly.controller)
        async with assembly.running() as running:
            await check(running, app)

    asyncio.run(whole())


def _from(app: FastAPI, address: str, token: str = "") -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    transport = httpx.ASGITransport(app=app, client=(address, 1))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers)


async def _statuses(client: httpx.AsyncClient, path: str, count: int) -> list[int]:
    return [(await client.get(path)).status_code for _ in range(count)]


@pytest.mark.parametrize(("path", "token", "usual"), [("/healthz", "", 200), (f"{API}/info", "wrong", 401)])
def test_a_stranger_who_asks_too_often_is_told_how_long_to_wait(
    tmp_path: Path, path: str, token: str, usual: int
) -> None:
    async def check(running: Controller, app: FastAPI) -> None:
        async with _from(app, "192.0.2.1", token) as client:
            assert set(await _statuses(client, path, 10)) == {usual}
            refused = next(r for r in [await client.get(path) for _ in range(10)] if r.status_code == 429)
            assert refused.json()["who"] == "user"
            await asyncio.sleep(int(refused.headers["Retry-After"]))
            assert (await client.get(path)).status_code == usual

    _run(tmp_path, check)


def test_strangers_of_other_addresses_and_known_callers_do_not_wait_for_him(tmp_path: Path) -> None:
    async def check(running: Controller, app: FastAPI) -> None:
        async with _from(app, "192.0.2.1", "guess") as greedy:
            assert 429 in await _statuses(greedy, f"{API}/info", 100)
        for address in ("192.0.2.2", "127.0.0.1", "::1", "2001:db8::1"):
            async with _from(app, address) as other:
                assert await _statuses(other, "/healthz", 3) == [200] * 3
                assert await _statuses(other, "/readyz", 3) == [200] * 3
        async with _from(app, "192.0.2.1", running.keys.api_token) as owner:
            assert await _statuses(owner, f"{API}/info", 3) == [200] * 3
        async with _from(app, "192.0.2.1", "pi") as device:
            assert await _statuses(device, f"{API}/files/nothing", 2) == [404] * 2

    _run(tmp_path, check)


def test_an_ipv6_network_has_one_rate_and_mapped_ipv4_is_ipv4(tmp_path: Path) -> None:
    async def check(running: Controller, app: FastAPI) -> None:
        for number in range(10):
            async with _from(app, f"2001:db8::{number:x}") as client:
                assert await _statuses(client, "/healthz", 1) == [200]
        async with _from(app, "2001:db8::ffff") as client:
            assert await _statuses(client, "/healthz", 1) == [429]
        for address in ("192.0.2.1", "::ffff:192.0.2.1"):
            async with _from(app, address) as client:
                answered = await _statuses(client, "/healthz", 10)
        assert 429 in answered

    _run(tmp_path, check)


def test_a_key_and_a_device_have_rates_of_their_own(tmp_path: Path) -> None:
    async def check(running: Controller, app: FastAPI) -> None:
        key, _ = await running.api_keys.add("ann", ["read"], None, time.time())
        for token, path, most in ((key, f"{API}/info", 30), ("pi", f"{API}/files/nothing", 3)):
            async with _from(app, "192.0.2.1", token) as client:
                statuses = await _statuses(client, path, most * 3)
                assert statuses[:most].count(429) == 0
                assert statuses[most:].count(429) > most / 2
        async with _from(app, "192.0.2.1", running.keys.api_token) as owner:
            assert await _statuses(owner, f"{API}/info", 3) == [200] * 3

    _run(tmp_path, check)


def test_a_key_from_many_addresses_is_still_one_caller(tmp_path: Path) -> None:
    async def check(running: Controller, app: FastAPI) -> None:
        statuses = []
        for number in range(60):
            async with _from(app, f"192.0.2.{number}", running.keys.api_token) as client:
                statuses += await _statuses(client, f"{API}/info", 1)
        assert 429 in statuses

    _run(tmp_path, check)


async def _pieces(sent: list[int], size: int, count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        sent.append(size)
        yield b" " * size


@pytest.mark.parametrize("path", [f"{API}/claims", f"{API}/keys", f"{API}/enroll", "/nowhere"])
def test_a_body_that_is_too_big_is_refused_before_it_is_read_whole(tmp_path: Path, path: str) -> None:
    async def check(running: Controller, app: FastAPI) -> None:
        headers = {"Content-Type": "application/json"}
        async with _from(app, "127.0.0.1", running.keys.api_token) as client:
            sent: list[int] = []
            response = await client.post(path, content=_pieces(sent, 500, 1000), headers=headers)
            assert response.status_code == 413
            assert sum(sent) <= 2 * LIMITS.json_bytes
            told = {**headers, "Content-Length": str(LIMITS.json_bytes + 1)}
            sent.clear()
            response = await client.post(path, content=_pieces(sent, 1, LIMITS.json_bytes + 1), headers=told)
            assert response.status_code == 413
            assert sent == []
            assert "2,000 bytes" in response.json()["error"]

    _run(tmp_path, check)


def test_a_body_of_unknown_length_that_fits_arrives_whole(tmp_path: Path) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b'{"name": "ann", ', b'"scopes": ', b'["read"]}'):
            yield piece

    async def check(running: Controller, app: FastAPI) -> None:
        async with _from(app, "127.0.0.1", running.keys.api_token) as client:
            headers = {"Content-Type": "application/json"}
            response = await client.post(f"{API}/keys", content=pieces(), headers=headers)
            assert (response.status_code, response.json()["name"]) == (201, "ann")

    _run(tmp_path, check)


def test_files_and_inference_have_limits_of_their_own(tmp_path: Path) -> None:
    async def check(running: Controller, app: FastAPI) -> None:
        big = b" " * 10 * LIMITS.json_bytes
        async with _from(app, "127.0.0.1", running.keys.api_token) as client:
            assert (await client.put(f"{API}/files", content=big)).status_code == 201
            assert (await client.post("/v2/models/x/infer", content=big)).status_code == 400
            assert (await client.post(f"{API}/deploy", content=big)).status_code not in (401, 403, 413)

    _run(tmp_path, check)
