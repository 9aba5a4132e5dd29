"""Lepta's own wheel, from a controller that runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import httpx
import pytest

from controller import wheel
from tests.system.world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("world")) as world:
        yield world


def _get(world: World, name: str, **headers: str) -> httpx.Response:
    """As a device does it that has no token yet."""
    return httpx.get(f"{world.client.place.url}/install/{name}", headers=headers, trust_env=False)


def test_whoever_asks_gets_the_wheel_that_the_hash_names(world: World) -> None:
    own = wheel.build()
    answer = _get(world, own.name)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/octet-stream"
    assert hashlib.sha256(answer.content).hexdigest() == own.sha256
    assert answer.headers["etag"] == f'"{own.sha256}"'
    again = _get(world, own.name, **{"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["lepta-0.0.0-py3-none-any.whl", "..%2f..%2fapi-token", "api-token", "%00"])
def test_no_other_file_is_given_away(world: World, name: str) -> None:
    answer = _get(world, name)
    assert answer.status_code == 404
    assert b"lepta_" not in answer.content


def test_a_controller_for_its_own_machine_sends_nobody_for_a_wheel(world: World) -> None:
    claim = world.client.claim()
    assert (claim.url, claim.wheel_url, claim.ca_fingerprint) == (world.client.place.url, "", "")
