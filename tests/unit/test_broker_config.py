"""What is written for the brokers that the controller starts itself, and whom they refuse to be."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from agent.contract.bindings import BindingError
from agent.contract.topics import TopicError
from controller import broker
from controller.broker import Broker, ClientRight
from controller.broker import config as broker_config
from controller.broker.config import Lan, Listen
from controller.broker.port import BoundTopic
from controller.errors import Internal, UserError
from controller.settings import Limits, Settings

FILES = Path("/data/ca")
LISTEN = Listen("127.0.0.1", 1883, "lepta", "secret")
LAN = Lan("", 8883, 8884, FILES / "ca.pem", FILES / "server.pem", FILES / "server.key")
HASH = broker_config.client_password("open sesame", b"salt")


def _sections(lan: Lan | None) -> list[str]:
    text = broker_config.mosquitto(LISTEN, lan, Limits(), Path("/data/broker"), "me")
    return text.split("\nlistener ")


def _create(tmp_path: Path, *, there: bool, **settings: object) -> Broker:
    found = "/usr/sbin/mosquitto" if there else None
    return broker.create(Settings(data=tmp_path, **settings), "secret", find=lambda: found)  # type: ignore[arg-type]


def test_without_lan_there_is_one_listener_and_it_is_on_loopback() -> None:
    _, *listeners = _sections(None)
    assert [listener.splitlines()[0] for listener in listeners] == ["1883 127.0.0.1"]


def test_a_unix_socket_is_one_listener_more_for_the_same_users() -> None:
    listen = replace(LISTEN, path="/data/broker/mosquitto.sock")
    text = broker_config.mosquitto(listen, None, Limits(), Path("/data/broker"), "me")
    _, tcp, near = text.split("\nlistener ")
    assert near.splitlines()[0] == "0 /data/broker/mosquitto.sock"
    assert [line for line in near.splitlines() if line][1:] == [line for line in tcp.splitlines() if line][1:]
    assert "allow_anonymous false" in near


def test_only_mosquitto_has_a_unix_socket_and_only_where_its_path_can_be_written(tmp_path: Path) -> None:
    assert _create(tmp_path, there=True).path == str(tmp_path / "broker" / "mosquitto.sock")
    assert _create(tmp_path / ("x" * 100), there=True).path == ""
    assert _create(tmp_path / "my data", there=True).path == ""
    assert _create(tmp_path, there=True, broker="embedded").path == ""
    assert _create(tmp_path, there=True, broker="mqtt://127.0.0.1").path == ""


def test_every_listener_refuses_strangers_and_bounds_its_connections() -> None:
    head, *listeners = _sections(LAN)
    assert len(listeners) == 3
    assert "per_listener_settings true" in head
    for bound in ("max_packet_size", "max_inflight_messages", "max_queued_messages", "max_queued_bytes"):
        assert f"\n{bound} " in head
    for listener in listeners:
        assert "allow_anonymous false" in listener
        assert "max_connections 10000" in listener


def test_listeners_for_other_machines_speak_tls_and_have_rights_of_their_own() -> None:
    _, _, agents, clients = _sections(LAN)
    for listener in (agents, clients):
        for line in ("certfile /data/ca/server.pem", "tls_version tlsv1.2", "use_username_as_clientid true"):
            assert line in listener
    for line in ("require_certificate true", "use_identity_as_username true", "crlfile /data/broker/crl.pem"):
        assert line in agents
    assert "acl_file /data/broker/agents.acl" in agents
    assert "acl_file /data/broker/clients.acl" in clients
    assert "password_file /data/broker/clients.passwd" in clients


def test_a_device_writes_what_goes_up_and_reads_what_goes_down_under_its_own_name() -> None:
    lines = broker_config.agents_acl().splitlines()
    assert "pattern write lepta/v1/agents/%u/hello" in lines
    assert "pattern write lepta/v1/predictions/+/%u" in lines
    assert "pattern read lepta/v1/agents/%u/desired" in lines
    assert "pattern read lepta/v1/agents/%u/blobs/+/+" in lines
    assert not [line for line in lines if "%c" in line or "#" in line or "agents/+" in line]


def test_a_client_reads_its_answers_and_the_predictions_that_it_was_granted() -> None:
    text = broker_config.clients_acl([ClientRight("shop", HASH, ("digits", "faces")), ClientRight("till", HASH)])
    assert text.splitlines() == [
        "pattern write lepta/v1/models/+/infer",
        "pattern read lepta/v1/clients/%u/answer",
        "user shop",
        "topic read lepta/v1/predictions/digits/+",
        "topic read lepta/v1/predictions/faces/+",
        "user till",
    ]


def test_a_device_reads_what_is_bound_for_it_and_a_client_writes_what_it_was_granted() -> None:
    bound = [
        BoundTopic("doors/{device}/camera"),
        BoundTopic("plant/numbers", ("pi-7", "pi-8")),
        BoundTopic("lepta/v1/predictions/keyword/{device}", ("pi-7",)),
    ]
    before, after = (broker_config.agents_acl(each).splitlines() for each in ([], bound))
    assert after[: len(before)] == before
    assert after[len(before) :] == [
        "pattern read doors/%u/camera",
        "user pi-7",
        "topic read plant/numbers",
        "topic read lepta/v1/predictions/keyword/pi-7",
        "user pi-8",
        "topic read plant/numbers",
    ]
    text = broker_config.clients_acl([ClientRight("camera", HASH, (), ("doors/pi-7/camera",))])
    assert text.splitlines()[-2:] == ["user camera", "topic write doors/pi-7/camera"]


@pytest.mark.parametrize("topic", ["a\ntopic readwrite #", "#", "doors/+", "a%u", "lepta/v1/agents/x/cmd", "$SYS/x"])
def test_no_topic_that_is_bound_or_granted_can_write_rights_of_its_own(topic: str) -> None:
    with pytest.raises(BindingError):
        broker_config.agents_acl([BoundTopic(topic)])
    with pytest.raises(BindingError):
        broker_config.clients_acl([ClientRight("camera", HASH, (), (topic,))])


@pytest.mark.parametrize("name", ["a\ntopic readwrite #", "+", "#", "a/b", "", "Lepta", "$SYS"])
def test_no_name_can_write_rights_of_its_own(name: str) -> None:
    with pytest.raises(TopicError):
        broker_config.clients_acl([ClientRight(name, HASH)])
    with pytest.raises(TopicError):
        broker_config.clients_passwords([ClientRight(name, HASH)], b"nobody")


def test_a_model_that_is_granted_cannot_write_rights_either() -> None:
    with pytest.raises(TopicError):
        broker_config.clients_acl([ClientRight("shop", HASH, ("a/+\ntopic readwrite #",))])


def test_a_password_is_kept_as_mosquitto_reads_it() -> None:
    empty, kind, count, salt, digest = HASH.split("$")
    assert (empty, kind, base64.b64decode(salt)) == ("", "7", b"salt")
    assert base64.b64decode(digest) == hashlib.pbkdf2_hmac("sha512", b"open sesame", b"salt", int(count))


@pytest.mark.parametrize("password", ["plain", "", f"{HASH}\nroot:{HASH}"])
def test_a_password_that_is_not_hashed_is_not_written(password: str) -> None:
    with pytest.raises(ValueError, match="not hashed"):
        broker_config.clients_passwords([ClientRight("shop", password)], b"nobody")


def test_the_list_of_passwords_is_never_empty() -> None:
    (line,) = broker_config.clients_passwords([], b"nobody").splitlines()
    assert line.startswith("Nobody:$7$")


@pytest.mark.parametrize("kind", ["auto", "mosquitto"])
def test_lan_without_mosquitto_names_the_line_that_installs_it(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UserError, match="mosquitto is not installed") as caught:
        _create(tmp_path, there=False, broker=kind, lan=True)
    assert caught.value.hint == "apt install mosquitto"


@pytest.mark.parametrize(("there", "line"), [(True, ""), (False, "apt install mosquitto && ")])
@pytest.mark.parametrize("settings", [{"lan": True}, {"broker_host": "0.0.0.0"}])
def test_the_embedded_broker_serves_no_other_machine_and_says_what_to_run(
    tmp_path: Path, settings: dict[str, object], there: bool, line: str
) -> None:
    with pytest.raises(UserError, match="this machine only") as caught:
        _create(tmp_path, there=there, broker="embedded", **settings)
    assert caught.value.hint == f"{line}lepta up --lan"


def test_lan_without_certificates_is_our_own_mistake(tmp_path: Path) -> None:
    with pytest.raises(Internal, match="no certificate"):
        _create(tmp_path, there=True, lan=True)
