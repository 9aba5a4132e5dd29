"""Who may join: the rules alone, and with the store that makes them atomic."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.messages import SwapRecord
from controller import reads, writes
from controller.errors import Busy, Conflict, Forbidden, LeptaError, TooMany
from controller.identity.enrolment import NAME_LENGTH, Application, Room, decide
from controller.records import Certificate, Claim, Client, Device, Swap
from controller.store import Store
from firmware_profiles.profile import Facts

NOW = 100.0
FACTS = Facts(machine="x86_64", labels={"room": "cellar"})
ASKED = Application(
    claim="c", name="pi-1", derived=False, public_key="key-1", hardware="11" * 16, facts=FACTS, token_hash="t-1"
)
ROOM = Room(devices=0, devices_most=10, pending=0, pending_most=2)


def _claim(**changes: Any) -> Claim:
    return msgspec.structs.replace(Claim(token_hash="c", expires_at=200.0, uses_left=1, created_at=0.0), **changes)


def _asked(**changes: Any) -> Application:
    values = {name: getattr(ASKED, name) for name in ASKED.__dataclass_fields__}
    return Application(**{**values, **changes})


def _device(**changes: Any) -> Device:
    return msgspec.structs.replace(decide(ASKED, _claim(), None, set().__contains__, ROOM, NOW), **changes)


# -- the rules


def test_a_device_gets_the_claims_labels_and_is_approved_at_once_or_waits() -> None:
    joined = decide(ASKED, _claim(labels={"site": "north"}), None, set().__contains__, ROOM, NOW)
    assert (joined.name, joined.state, joined.labels) == ("pi-1", "approved", {"site": "north"})
    assert decide(ASKED, _claim(approve=False), None, set().__contains__, ROOM, NOW).state == "pending"


def test_a_name_that_somebody_chose_is_never_changed() -> None:
    with pytest.raises(Conflict, match="'pi-1' is taken"):
        decide(ASKED, _claim(), None, {"pi-1"}.__contains__, ROOM, NOW)


def test_nobody_is_called_like_the_controller() -> None:
    with pytest.raises(Conflict, match="taken"):
        decide(_asked(name="lepta"), _claim(), None, set().__contains__, ROOM, NOW)
    derived = decide(_asked(name="lepta", derived=True), _claim(), None, set().__contains__, ROOM, NOW)
    assert derived.name == "lepta-2"


@given(name=st.text("abc-", min_size=1, max_size=63), clashes=st.integers(0, 30))
def test_a_derived_name_becomes_a_free_one_of_legal_length(name: str, clashes: int) -> None:
    taken: set[str] = set()
    for _ in range(clashes):
        taken.add(decide(_asked(name=name, derived=True), _claim(), None, taken.__contains__, ROOM, NOW).name)
    found = decide(_asked(name=name, derived=True), _claim(), None, taken.__contains__, ROOM, NOW).name
    assert len(taken) == clashes
    assert found not in taken
    assert len(found) <= NAME_LENGTH


def test_a_claim_for_one_machine_is_refused_to_another() -> None:
    assert decide(ASKED, _claim(hardware=ASKED.hardware), None, set().__contains__, ROOM, NOW).name == "pi-1"
    with pytest.raises(Forbidden, match="other hardware"):
        decide(ASKED, _claim(hardware="22" * 16), None, set().__contains__, ROOM, NOW)


def test_who_asks_again_with_the_same_key_and_claim_is_the_same_device_with_a_new_token() -> None:
    mine = _device(desired_generation=7)
    again = decide(_asked(token_hash="t-2"), None, mine, {"pi-1"}.__contains__, ROOM, NOW)
    assert again == msgspec.structs.replace(mine, device_token_hash="t-2")


def test_a_key_has_one_name() -> None:
    with pytest.raises(Conflict, match="already, as 'pi-1'"):
        decide(_asked(name="pi-2"), _claim(), _device(), set().__contains__, ROOM, NOW)
    derived = decide(_asked(name="pi-2", derived=True), _claim(), _device(), set().__contains__, ROOM, NOW)
    assert derived.name == "pi-1"


def test_a_further_claim_adds_its_labels_and_approves_but_never_takes_an_approval_back() -> None:
    mine = _device(state="pending", labels={"a": "1", "b": "1"})
    joined = decide(_asked(claim="d"), _claim(labels={"b": "2"}), mine, set().__contains__, ROOM, NOW)
    assert (joined.state, joined.labels, joined.claim) == ("approved", {"a": "1", "b": "2"}, "d")
    approved = decide(_asked(claim="d"), _claim(approve=False), _device(), set().__contains__, ROOM, NOW)
    assert approved.state == "approved"


@pytest.mark.parametrize("claim", [None, _claim()])
def test_a_revoked_key_does_not_come_back(claim: Claim | None) -> None:
    with pytest.raises(Forbidden, match="was revoked"):
        decide(ASKED, claim, _device(state="revoked"), set().__contains__, ROOM, NOW)


def test_there_is_room_for_so_many() -> None:
    with pytest.raises(Busy, match="10 devices"):
        decide(ASKED, _claim(), None, set().__contains__, Room(10, 10, 0, 2), NOW)
    full = Room(5, 10, 2, 2)
    with pytest.raises(Busy, match="wait to be approved"):
        decide(ASKED, _claim(approve=False), None, set().__contains__, full, NOW)
    assert decide(ASKED, _claim(), None, set().__contains__, full, NOW).state == "approved"


# -- with the store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "lepta.db")
    yield opened
    opened.close()


def _join(store: Store, most: int = 10, **changes: Any) -> Device:
    [device] = store.commit_now(writes.join(_asked(**changes), most, 2, NOW))
    assert isinstance(device, Device)
    return device


def test_of_many_who_race_for_a_claim_exactly_one_joins(store: Store) -> None:
    store.commit_now(writes.put(_claim()))

    def join(number: int) -> bool:
        try:
            _join(store, name=f"pi-{number}", public_key=f"key-{number}", token_hash=f"t-{number}")
        except Forbidden:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(join, range(24)))
    assert sum(won) == 1
    assert store.read_now(reads.count(Device)) == 1


def test_a_refused_join_uses_up_nothing(store: Store) -> None:
    store.commit_now(writes.put(_claim(hardware="22" * 16)))
    with pytest.raises(Forbidden, match="other hardware"):
        _join(store)
    store.commit_now(writes.put(_claim(), Client(name="pi-1", password="", created_at=0.0)))
    with pytest.raises(Conflict, match="taken"):
        _join(store)
    assert store.read_now(reads.get(Claim, "c")).uses_left == 1
    assert store.read_now(reads.count(Device)) == 0


def test_who_has_no_claim_learns_nothing_about_names(store: Store) -> None:
    store.commit_now(writes.put(_claim()))
    _join(store)
    for name in ("pi-1", "pi-9"):
        with pytest.raises(Forbidden, match="not known here"):
            _join(store, claim="none", name=name, public_key="other", token_hash="other")


def test_a_lost_answer_is_given_again_also_when_the_claim_is_gone(store: Store) -> None:
    store.commit_now(writes.put(_claim()))
    first = _join(store)
    store.commit_now(writes.drop_claims(NOW + 1000))
    again = _join(store, token_hash="t-2")
    assert (again.name, again.enrolled_at) == (first.name, first.enrolled_at)
    assert store.read_now(reads.every(Device, device_token_hash="t-2")) == [again]
    assert store.read_now(reads.every(Device, device_token_hash="t-1")) == []


def test_only_an_approved_device_gets_certificates_and_not_without_end(store: Store) -> None:
    def issue(serial: str) -> None:
        issued = Certificate(serial=serial, subject="pi-1", issued_at=NOW, expires_at=NOW + 10)
        store.commit_now(writes.issue(issued, 2, NOW))

    with pytest.raises(Forbidden):
        issue("1")
    store.commit_now(writes.put(_device()))
    old = Certificate(serial="0", subject="pi-1", issued_at=0.0, expires_at=NOW - 1)
    store.commit_now(writes.put(old))
    issue("1")
    issue("2")
    with pytest.raises(TooMany, match="2 certificates"):
        issue("3")
    assert [c.serial for c in store.read_now(reads.every(Certificate))] == ["1", "2"]
    store.commit_now(writes.put(_device(state="revoked")))
    with pytest.raises(Forbidden):
        issue("4")


def test_what_was_revoked_keeps_its_time_and_outlives_the_device(store: Store) -> None:
    made = [Certificate(serial=s, subject=s[:4], issued_at=1.0, expires_at=9.0) for s in ("pi-1.a", "pi-1.b", "pi-2.a")]
    swap = Swap(
        device="pi-1",
        model="m",
        at=1.0,
        record=SwapRecord(model="m", to_version=1, to_artifact="a" * 64, outcome="committed"),
    )
    store.commit_now(writes.put(*made), writes.put(_device(), swap), writes.revoke_certificates("pi-1", 5.0))
    store.commit_now(writes.revoke_certificates("pi-1", 6.0), writes.forget_device("pi-1"))
    found = {c.serial: c.revoked_at for c in store.read_now(reads.every(Certificate))}
    assert found == {"pi-1.a": 5.0, "pi-1.b": 5.0, "pi-2.a": None}


def test_devices_and_clients_share_one_name_space(store: Store) -> None:
    store.commit_now(writes.put(_device()))
    with pytest.raises(Conflict, match="taken"):
        store.commit_now(writes.add_client(Client(name="pi-1", password="", created_at=0.0), 2))
    for name in ("a", "b"):
        store.commit_now(writes.add_client(Client(name=name, password="", created_at=0.0), 2))
    with pytest.raises(LeptaError, match="no more fit"):
        store.commit_now(writes.add_client(Client(name="c", password="", created_at=0.0), 2))
