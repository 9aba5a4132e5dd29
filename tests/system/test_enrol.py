"""Devices join a real controller: once per claim, under their own name, with what they need and nothing more."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from agent.contract.signing import PrivateKey
from controller.simulate import SimulatedFleet, Simulation
from tests import builders
from tests.benchmarks.devices import races
from tests.joining import application, request_of
from tests.system.lan import LanWorld
from tests.system.test_fleet import until, wait_for_job
from tests.system.world import World

HERE, ELSEWHERE = "11" * 16, "22" * 16


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("world")) as world:
        yield world


@pytest.fixture(scope="module")
def lan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LanWorld]:
    with LanWorld(tmp_path_factory.mktemp("lan")) as lan:
        yield lan


def _ask(world: World, body: dict[str, Any]) -> httpx.Response:
    return world.http.post("/api/v1/enroll", json=body)


def _as_device(world: World, told: dict[str, Any], key: PrivateKey) -> httpx.Response:
    mine = {"Authorization": f"Bearer {told['device_token']}"}
    return world.http.post("/api/v1/certificate", json={"csr": request_of(key)}, headers=mine)


def _error(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]


def test_a_device_that_lost_its_answer_asks_again_and_is_the_same_device(world: World) -> None:
    claim, key = world.client.claim(uses=2), PrivateKey.generate()
    first = _ask(world, application(claim.token, key, "twice"))
    again = _ask(world, application(claim.token, key, "twice"))
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["agent"] == again.json()["agent"] == "twice"
    assert _as_device(world, first.json(), key).status_code == 401
    assert _as_device(world, again.json(), key).status_code == 200
    assert _ask(world, application(claim.token, PrivateKey.generate(), "other")).status_code == 201
    assert _ask(world, application(claim.token, PrivateKey.generate(), "third")).status_code == 403


def test_a_controller_that_dies_between_claim_and_answer_loses_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEPTA_FAULTS", "enrol.committed=kill")
    with World(tmp_path) as world:
        monkeypatch.delenv("LEPTA_FAULTS")
        body = application(world.client.claim(labels={"site": "north"}).token, PrivateKey.generate(), "pi-1")
        with pytest.raises(httpx.HTTPError):
            _ask(world, body)
        world.controller.process.wait()
        world.restart_controller()
        assert _ask(world, body).status_code == 201
        [device] = world.client.devices()
        assert (device.name, device.labels) == ("pi-1", {"site": "north"})
        assert _ask(world, {**body, "csr": request_of(PrivateKey.generate())}).status_code == 403


def test_a_chosen_name_is_kept_or_refused_and_a_derived_one_is_made_free(world: World) -> None:
    def ask(name: str | None, **more: Any) -> httpx.Response:
        return _ask(world, application(world.client.claim().token, PrivateKey.generate(), name, **more))

    assert ask("cam").json()["agent"] == "cam"
    assert _error(ask("cam")) == (409, "the name 'cam' is taken")
    assert ask("cam", derived=True).json()["agent"] == "cam-2"
    assert ask("lepta").status_code == 409
    assert ask(None).json()["agent"].startswith("device-")
    for hostile in ("+", "#", "a/b", "A", "", "a" * 64, "$SYS"):
        assert ask(hostile).status_code == 422


def test_a_device_that_waits_for_approval_gets_nothing_until_it_has_it(world: World) -> None:
    key = PrivateKey.generate()
    first = _ask(world, application(world.client.claim(approve=False).token, key, "waits"))
    told = first.json()
    assert (first.status_code, told["state"]) == (202, "pending")
    assert not any(told["broker"].values())
    assert (world.client.broker().password or "no password") not in first.text
    assert _as_device(world, told, key).status_code == 202
    digest = world.http.put("/api/v1/files", content=b"content").json()["digest"]
    mine = {"Authorization": f"Bearer {told['device_token']}"}
    assert world.http.get(f"/api/v1/files/{digest}", headers=mine).status_code == 403
    assert world.client.device("waits").state == "pending"
    assert world.client.approve_device("waits").state == "approved"
    approved = _as_device(world, told, key)
    assert (approved.status_code, approved.json()["state"]) == (200, "approved")
    assert approved.json()["broker"]["port"] == world.client.broker().port
    assert world.http.get(f"/api/v1/files/{digest}", headers=mine).content == b"content"


def test_a_claim_for_one_machine_lets_only_that_one_in(world: World) -> None:
    token, key = world.client.claim(hardware=HERE).token, PrivateKey.generate()
    refused = _ask(world, application(token, key, "bound", hardware=ELSEWHERE))
    assert _error(refused) == (403, "this claim is for other hardware")
    assert _ask(world, application(token, key, "bound", hardware=HERE)).status_code == 201
    assert world.client.device("bound").hardware == HERE


@pytest.mark.parametrize("csr", ["", "no request", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n", "x" * 5000])
def test_what_is_no_request_of_a_key_is_refused_and_uses_up_nothing(world: World, csr: str) -> None:
    token = world.client.claim().token
    assert _ask(world, {**application(token, PrivateKey.generate()), "csr": csr}).status_code == 422
    assert _ask(world, application(token, PrivateKey.generate())).status_code == 201


def test_a_device_that_is_shut_out_can_take_its_claim_with_it(world: World) -> None:
    token = world.client.claim(uses=5).token
    for name in ("fleet-1", "fleet-2"):
        assert _ask(world, application(token, PrivateKey.generate(), name)).status_code == 201
    assert world.client.revoke_device("fleet-1").claim_uses == 3
    assert _ask(world, application(token, PrivateKey.generate(), "fleet-3")).status_code == 201
    assert world.client.remove_device("fleet-1", claim=True).claim_uses == 0
    assert _ask(world, application(token, PrivateKey.generate(), "fleet-4")).status_code == 403
    assert world.client.device("fleet-2").state == "approved"


def test_labels_of_a_claim_are_the_devices_and_can_be_changed(world: World) -> None:
    token = world.client.claim(labels={"site": "north", "rack": "1"}).token
    facts = {"machine": "x86_64", "labels": {"room": "cellar", "rack": "9"}}
    assert _ask(world, {**application(token, PrivateKey.generate(), "labelled"), "facts": facts}).status_code == 201
    assert world.client.device("labelled").labels == {"site": "north", "rack": "1", "room": "cellar"}
    changed = world.client.label_device("labelled", {"site": "south"}, ["rack"])
    assert changed.labels == {"site": "south", "rack": "9", "room": "cellar"}
    wrong = world.http.post("/api/v1/devices/labelled/labels", json={"put": {"a b": "x"}})
    assert wrong.status_code == 422


def test_of_devices_that_race_for_a_claim_exactly_one_joins(tmp_path: Path) -> None:
    figures = {figure.key: figure for figure in races.figures(tmp_path, quick=True)}
    assert figures["races"].value == figures["race_one_winner"].value == 10
    assert figures["race_double"].value == 0


def test_what_a_revoked_device_computed_moves_on_and_history_keeps_its_name(tmp_path: Path) -> None:
    with World(tmp_path) as world:
        token = world.client.claim(uses=2).token
        simulation = Simulation(row_ms=2.0)
        fleet = SimulatedFleet(world.client.place.url, token, tmp_path / "simulated", 2, lambda _: simulation)
        thread = threading.Thread(target=fleet.run)
        thread.start()
        try:
            until(lambda: sum(d.online for d in world.client.devices()) == 2, "both are online")
            rollout = world.roll_out("toy", world.bring("toy", builders.classifier()))
            x = np.zeros((2000, 16), np.float32)
            job = world.client.start_job("toy", world.put_array(x, tmp_path / "x.npy"), shard_rows=20)
            until(lambda: world.client.job(job.id).accepted > 10, "the job is under way")
            assert not world.client.remove_device("sim-000").by_broker
            ended = wait_for_job(world, job.id)
        finally:
            fleet.stop()
            thread.join()
        assert (ended.state, ended.lost, ended.rows) == ("done", 0, 2000)
        assert "sim-000" in ended.devices
        assert ended.moved > 0
        assert [d.name for d in world.client.devices()] == ["sim-001"]
        assert {d.device for d in world.client.rollout(rollout.id).devices} == {"sim-000", "sim-001"}
        world.controller.process.kill()
        world.controller.process.wait()
        world.restart_controller()
        assert {d.device for d in world.client.rollout(rollout.id).devices} == {"sim-000", "sim-001"}
        assert [d.name for d in world.client.devices()] == ["sim-001"]


@pytest.mark.debian
def test_with_lan_a_device_gets_a_certificate_in_its_name_and_no_password(lan: LanWorld) -> None:
    device = lan.join("pi-1")
    assert device.told["broker"] == {
        "host": "",
        "port": lan.agents_port,
        "username": "",
        "password": "",
        "path": "",
        "tls": True,
        "public": False,
        "at_once": True,
    }
    certificate = x509.load_pem_x509_certificate(device.told["certificate"].encode())
    [name] = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert name.value == "pi-1"
    assert device.told["not_after"] == certificate.not_valid_after_utc.timestamp()
    assert lan.client.device("pi-1").certificate_expires == device.told["not_after"]
    assert device.told["ca"] == lan.http.get("/api/v1/ca").json()["ca"] == lan.ca.read_text()
    with device.connect() as login:
        assert login.is_up()


@pytest.mark.debian
def test_with_lan_a_device_that_waits_has_its_certificate_when_it_is_approved(lan: LanWorld) -> None:
    key = PrivateKey.generate()
    told = _ask(lan, application(lan.client.claim(approve=False).token, key, "waits")).json()
    assert (told["state"], told["certificate"]) == ("pending", "")
    lan.client.approve_device("waits")
    approved = _as_device(lan, told, key).json()
    assert approved["state"] == "approved"
    with lan.device_of(key, approved).connect() as login:
        assert login.is_up()


@pytest.mark.debian
def test_with_lan_a_claim_tells_where_to_ask_and_whom_to_trust(lan: LanWorld) -> None:
    claim = lan.client.claim()
    certificate = x509.load_pem_x509_certificate(lan.ca.read_bytes())
    assert claim.ca_fingerprint == certificate.fingerprint(hashes.SHA256()).hex()
    assert claim.url.startswith("https://127.0.0.1:")
