"""A device that is shut out: off within seconds, nothing of it left at the broker, and no way back in. On mosquitto."""

from __future__ import annotations

import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from agent.contract import children, topics
from agent.contract.messages import AgentStatus, Hello, Stamper
from agent.contract.signing import PrivateKey
from firmware_profiles.profile import Facts
from tests import builders
from tests.joining import application
from tests.system.lan import LanWorld, Login
from tests.system.test_fleet import until

pytestmark = pytest.mark.debian
OFF_S = 10.0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LanWorld]:
    with LanWorld(tmp_path_factory.mktemp("lan")) as world:
        yield world


def _speak(login: Login, name: str) -> None:
    """What an agent says when it comes."""
    stamper = Stamper(f"boot-of-{name}")
    status = AgentStatus(online=True, session="s")
    hello = Hello(agent=name, session="s", generation=0, facts=Facts(machine="x86_64", runtimes=builders.RUNTIMES))
    login.publish(topics.agent(name, "status"), stamper.encode(status), retain=True)
    login.publish(topics.agent(name, "hello"), stamper.encode(hello))


def _online(world: LanWorld, name: str) -> bool:
    return any(device.name == name and device.online for device in world.client.devices())


def test_a_revoked_device_is_off_within_ten_seconds_and_leaves_nothing(world: LanWorld) -> None:
    device, other = world.join("pi-1"), world.join("pi-2")
    world.client.start_rollout(world.client.release("toy", world.push("toy", builders.classifier())).id)
    with device.connect() as login, other.connect() as bystander:
        _speak(login, "pi-1")
        login.publish(topics.agent("pi-1", "load"), b"left behind", retain=True)
        _speak(bystander, "pi-2")
        until(lambda: _online(world, "pi-1") and _online(world, "pi-2"), "both are online")
        assert {"agents/pi-1/desired", "agents/pi-1/status"} <= world.retained("agents/+/+")
        began = time.monotonic()
        assert world.client.revoke_device("pi-1").by_broker
        assert login.ended.wait(OFF_S)
        took = time.monotonic() - began
        assert took < OFF_S
        until(lambda: not world.retained("agents/pi-1/#"), "nothing is retained", OFF_S - took)
        with device.connect() as again:
            assert not again.is_up()
        time.sleep(6)
        assert world.retained("agents/pi-1/#") == set()
        assert bystander.is_up()
        assert _online(world, "pi-2")
    assert world.client.device("pi-1").state == "revoked"
    assert not _online(world, "pi-1")


def test_a_real_agent_is_put_out_too_and_requests_go_to_the_others(tmp_path: Path) -> None:
    with LanWorld(tmp_path) as world:
        for name in ("pi-1", "pi-2"):
            world.add_agent(name)
        world.roll_out("toy", world.push("toy", builders.classifier()))
        began = time.monotonic()
        world.client.revoke_device("pi-1")
        log = tmp_path / "pi-1.log"
        until(lambda: "disconnected" in log.read_text(), "the agent loses its connection", OFF_S)
        until(lambda: not world.retained("agents/pi-1/#"), "nothing is retained", OFF_S - (time.monotonic() - began))
        x = np.zeros((1, 16), np.float32)
        for _ in range(10):
            world.client.infer("toy", {"x": x})
        assert not _online(world, "pi-1")
        time.sleep(6)
        assert world.retained("agents/pi-1/#") == set()
        assert _online(world, "pi-2")


def test_a_device_that_comes_back_again_and_again_while_it_is_revoked_is_out_after_ten_seconds(world: LanWorld) -> None:
    device = world.join("stubborn")
    logins: list[Login] = []
    with device.connect() as first:
        assert first.is_up()
        world.client.revoke_device("stubborn")
        until_s = time.monotonic() + OFF_S
        while time.monotonic() < until_s:
            with device.connect(will=b"again") as login:
                logins.append(login)
        assert not first.is_up()
    assert not any(login.is_up() for login in logins[len(logins) // 2 :])
    assert world.retained("agents/stubborn/#") == set()


def test_its_token_and_its_key_are_void_and_a_revocation_is_for_good(world: LanWorld) -> None:
    device = world.join("pi-3")
    assert device.renew().status_code == 200
    world.client.revoke_device("pi-3")
    refused = device.renew()
    assert (refused.status_code, "revoked" in refused.json()["error"]) == (403, True)
    assert world.http.post("/api/v1/devices/pi-3/approve").status_code == 409
    world.client.revoke_device("pi-3")


def test_a_renewed_certificate_is_void_too(world: LanWorld) -> None:
    device = world.join("pi-4")
    renewed = world.device_of(device.key, device.renew().json())
    with renewed.connect() as login:
        assert login.is_up()
    world.client.revoke_device("pi-4")
    for each in (device, renewed):
        with each.connect() as login:
            assert not login.is_up()


def test_only_the_enrolled_key_gets_certificates(world: LanWorld) -> None:
    device = world.join("pi-5")
    refused = device.renew(PrivateKey.generate())
    assert (refused.status_code, "another key" in refused.json()["error"]) == (403, True)


def test_a_removed_devices_name_is_a_new_devices_and_its_old_certificate_stays_void(world: LanWorld) -> None:
    old = world.join("pi-6")
    world.client.remove_device("pi-6")
    assert "pi-6" not in [device.name for device in world.client.devices()]
    new = world.join("pi-6")
    with new.connect() as login, old.connect() as intruder:
        assert not intruder.is_up()
        time.sleep(6)
        assert login.is_up()
        assert not login.ended.is_set()


def test_a_client_asks_and_reads_what_it_was_granted_until_it_is_removed(world: LanWorld) -> None:
    made = world.client.add_client("shop", ["toy"])
    context = ssl.create_default_context(cadata=made.ca)
    device = world.join("pi-7")
    with device.connect() as agent, Login(made.port, context, user=("shop", made.password)) as shop:
        shop.subscribe(topics.predictions("+", "+"), topics.predictions("toy", "+"), topics.predictions("other", "+"))
        for model in ("toy", "other"):
            agent.publish(topics.predictions(model, "pi-7"), b"1")
        until(lambda: bool(shop.seen), "a prediction is read")
        time.sleep(0.3)
        assert {topic for topic, _ in shop.seen} == {topics.predictions("toy", "pi-7")}
        body = application(world.client.claim().token, PrivateKey.generate(), "shop")
        assert world.http.post("/api/v1/enroll", json=body).status_code == 409
        world.client.remove_client("shop")
        assert shop.ended.wait(OFF_S)
        assert agent.is_up()
    with Login(made.port, context, user=("shop", made.password)) as again:
        assert not again.is_up()


def test_a_restart_of_the_controller_keeps_who_is_shut_out(tmp_path: Path) -> None:
    with LanWorld(tmp_path) as world:
        good, bad = world.join("good"), world.join("bad")
        client = world.client.add_client("shop")
        world.client.revoke_device("bad")
        world.controller.process.kill()
        world.controller.process.wait()
        world.restart_controller()
        with good.connect() as login:
            assert login.is_up()
        with bad.connect() as login:
            assert not login.is_up()
        context = ssl.create_default_context(cadata=client.ca)
        with Login(world.clients_port, context, user=("shop", client.password)) as shop:
            assert shop.is_up()
        assert bad.renew().status_code == 403


def test_mosquittos_own_tools_work_with_what_client_add_wrote(world: LanWorld, tmp_path: Path) -> None:
    place = {"LEPTA_DATA": str(world.data)}
    add = [
        *children.command("controller.cli"),
        "client",
        "add",
        "tools",
        "--predictions",
        "toy",
        "--out",
        str(tmp_path),
    ]
    said = subprocess.run(add, env=children.environment(place), capture_output=True, text=True, check=True).stdout
    listen = next(line.strip() for line in said.splitlines() if "mosquitto_sub" in line and "-t" in line)
    device = world.join("pi-8")
    # What a client that was removed just before had retained may still be cleared meanwhile.
    command = ["sh", "-c", f"exec env {listen} -T {topics.predictions('toy', 'shop')} -C 1 -W 20"]
    with device.connect() as agent, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tool:
        while tool.poll() is None:
            agent.publish(topics.predictions("other", "pi-8"), b"not for it")
            agent.publish(topics.predictions("toy", "pi-8"), b"for it")
            time.sleep(0.1)
        assert tool.stdout is not None
        assert tool.stdout.read() == "lepta/v1/predictions/toy/pi-8 for it\n"
    ask = next(line.strip() for line in said.splitlines() if "mosquitto_rr" in line and "-t" in line)
    request = next(line.partition(": ")[2] for line in said.splitlines() if line.startswith("REQUEST.json"))
    (tmp_path / "request.json").write_text(request)
    ask = ask.replace("MODEL", "nothing").replace("REQUEST.json", str(tmp_path / "request.json"))
    answer = subprocess.run(["sh", "-c", f"exec env {ask} -W 20"], capture_output=True, check=True).stdout
    assert msgspec.json.decode(answer)["error"] == "no model is called 'nothing'"
