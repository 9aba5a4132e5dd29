"""What the broker is told about who may come in, and how somebody is put out, on a double of the real port."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from agent.contract import topics
from controller import writes
from controller.broker.port import Admission, Broker, Kind
from controller.errors import Conflict, NotFound, UserError
from controller.identity.authority import Authority
from controller.identity.clients import Clients
from controller.identity.gate import Gate
from controller.records import Certificate, Client, Device, Model
from controller.store import Store
from firmware_profiles.profile import Facts

NOW = 1_800_000_000.0
# Its own topics, all of them: a device may leave there what it likes.
CLEARED = [f"clear a/{kind}" for kind in ("desired", *topics.AGENT_UP)]


class RecordingBroker:
    """Remembers, in their order, what it was told and what was cleared."""

    kind: Kind = "mosquitto"
    host, port, username, password, tls = "127.0.0.1", 1, "lepta", "", False
    path = ""
    agents_port, clients_port = 8883, 8884
    alive = True

    def __init__(self) -> None:
        self.told: list[str] = []
        self.admissions: list[Admission] = []
        self.clears = True

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def admit(self, admission: Admission) -> None:
        self.admissions.append(admission)
        self.told.append("admit")

    async def expel(self, name: str) -> None:
        self.told.append(f"expel {name}")

    def clear(self, topic: str) -> bool:
        if self.clears:
            self.told.append(f"clear {topic.removeprefix('lepta/v1/agents/')}")
        return self.clears

    def revoked(self) -> set[str]:
        return {f"{entry.serial_number:x}" for entry in x509.load_pem_x509_crl(self.admissions[-1].crl.encode())}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "lepta.db")
    yield opened
    opened.close()


@pytest.fixture
def broker() -> RecordingBroker:
    return RecordingBroker()


@pytest.fixture
def gate(store: Store, broker: RecordingBroker, tmp_path: Path) -> Gate:
    port: Broker = broker
    authority = Authority.load_or_create(tmp_path / "ca", NOW)
    return Gate(store, authority, port, broker.clear, expel_s=0.8, wall=lambda: NOW)


def _certificate(serial: str, *, revoked: bool, expires: float = NOW + 9) -> Certificate:
    at = NOW - 1 if revoked else None
    return Certificate(serial=serial, subject="a", issued_at=0.0, expires_at=expires, revoked_at=at)


def _device(name: str, revoked: bool) -> Device:
    return Device(
        name=name,
        public_key="",
        device_token_hash=name,
        facts=Facts(machine="x86_64"),
        enrolled_at=0.0,
        state="revoked" if revoked else "approved",
    )


def test_the_broker_is_told_the_clients_and_what_is_revoked_and_has_not_expired(
    store: Store, broker: RecordingBroker, gate: Gate
) -> None:
    certificates = [
        _certificate("a1", revoked=True),
        _certificate("a2", revoked=False),
        _certificate("a3", revoked=True, expires=NOW - 1),
    ]
    store.commit_now(writes.put(*certificates, Client(name="shop", password="$7$", predictions=("+",), created_at=0.0)))
    asyncio.run(gate.refresh())
    [client] = broker.admissions[-1].clients
    assert (client.name, client.password, client.predictions) == ("shop", "$7$", ("+",))
    assert broker.revoked() == {"a1"}


def test_who_is_shut_out_is_refused_first_put_out_then_and_cleared_last_again_and_again(
    broker: RecordingBroker, gate: Gate
) -> None:
    async def act() -> None:
        await gate.shut_out("a")
        assert broker.told == ["admit", "expel a", *CLEARED]
        await asyncio.sleep(1.3)

    asyncio.run(act())
    assert broker.told == ["admit", *3 * ["expel a", *CLEARED]]


def test_its_predictions_of_every_model_are_cleared_too(store: Store, broker: RecordingBroker, gate: Gate) -> None:
    store.commit_now(writes.put(Model(name="digits", created_at=0.0)))
    asyncio.run(gate.shut_out("a"))
    assert broker.told == ["admit", "expel a", *CLEARED, "clear lepta/v1/predictions/digits/a"]


def test_a_new_device_of_the_same_name_is_left_alone(broker: RecordingBroker, gate: Gate) -> None:
    async def act() -> None:
        await gate.shut_out("a")
        gate.let_in("a")
        await asyncio.sleep(1.3)

    asyncio.run(act())
    assert broker.told.count("expel a") == 1


def test_what_cannot_be_cleared_now_is_cleared_later(broker: RecordingBroker, gate: Gate) -> None:
    async def act() -> None:
        broker.clears = False
        await gate.shut_out("a")
        await asyncio.sleep(1.3)
        broker.clears = True
        await asyncio.sleep(0.6)

    asyncio.run(act())
    assert broker.told[-len(CLEARED) :] == CLEARED


def test_after_a_start_what_is_retained_of_revoked_devices_is_cleared(
    store: Store, broker: RecordingBroker, gate: Gate
) -> None:
    store.commit_now(writes.put(_device("a", True), _device("b", False)))
    asyncio.run(gate.clear_revoked())
    assert broker.told == CLEARED


# -- clients


def test_a_clients_password_is_told_once_and_kept_as_a_hash(store: Store, broker: RecordingBroker, gate: Gate) -> None:
    clients = Clients(store, gate, port=8884, most=2)
    made, password = asyncio.run(clients.add("shop", ["digits", "digits"], NOW))
    assert len(password) >= 43
    assert password not in str(made)
    assert (made.password[:3], made.predictions) == ("$7$", ("digits",))
    assert [c.name for c in broker.admissions[-1].clients] == ["shop"]


def test_a_removed_client_is_refused_and_put_out(store: Store, broker: RecordingBroker, gate: Gate) -> None:
    clients = Clients(store, gate, port=8884, most=2)

    async def act() -> None:
        await clients.add("shop", [], NOW)
        await clients.remove("shop")

    asyncio.run(act())
    assert broker.admissions[-1].clients == ()
    assert "expel shop" in broker.told
    with pytest.raises(NotFound):
        asyncio.run(clients.remove("shop"))


def test_clients_need_a_broker_that_tells_them_apart_and_a_name_of_their_own(store: Store, gate: Gate) -> None:
    with pytest.raises(UserError, match="lepta up --lan"):
        asyncio.run(Clients(store, gate, port=0, most=2).add("shop", [], NOW))
    with pytest.raises(Conflict, match="the controller's own"):
        asyncio.run(Clients(store, gate, port=8884, most=2).add("lepta", [], NOW))
