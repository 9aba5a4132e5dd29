"""API keys: told once, kept as hashes, void at once, and never locked out of one's own controller."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller import reads, records, writes
from controller.errors import Conflict, Internal, NotFound, UserError
from controller.identity import api_keys
from controller.identity.api_keys import SCOPES, ApiKeys, hash_of, id_of
from controller.settings import Limits
from controller.store import Store

NOW = 1_800_000_000.0
LOCAL = api_keys.make()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "lepta.db")
    yield store
    store.close()


async def _keys(store: Store, local: str = LOCAL, **limits: Any) -> ApiKeys:
    keys = ApiKeys(store, Limits(**limits), local)
    await keys.start(NOW)
    return keys


def test_a_key_has_an_id_and_256_random_bits() -> None:
    made = {api_keys.make() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch("lepta_[0-9a-f]{8}_[A-Za-z0-9_-]{43}", key) and id_of(key) == key[6:14] for key in made)


@pytest.mark.parametrize("local", [LOCAL, "R4nd0m-text-of-an-older-version"], ids=["made by us", "of an older version"])
def test_the_key_in_the_file_is_an_admin_key_whatever_its_form(store: Store, local: str) -> None:
    async def check() -> None:
        keys = await _keys(store, local)
        found = keys.find(local)
        assert found is not None
        assert (found.scopes, found.expires_at, len(found.id)) == (("admin",), None, 8)
        again = await _keys(store, local)
        assert [record.id for record in again.every()] == [found.id]

    asyncio.run(check())


def test_an_emptied_database_knows_the_key_in_the_file_again(store: Store) -> None:
    async def check() -> None:
        first = (await _keys(store)).every()
        await store.commit([writes.remove(records.ApiKey, first[0].id)])
        assert (await _keys(store)).find(LOCAL) == first[0]

    asyncio.run(check())


def test_a_key_is_found_by_itself_alone_and_the_database_holds_no_key(store: Store, tmp_path: Path) -> None:
    async def check() -> str:
        keys = await _keys(store)
        key, record = await keys.add("ann", ["infer", "read", "infer"], None, NOW)
        assert record.scopes == ("read", "infer")
        assert keys.find(key) == record
        assert keys.find(key[:-1] + "-") is None
        assert keys.find("") is keys.find(hash_of(key)) is None
        return key

    key = asyncio.run(check())
    store.close()
    for path in tmp_path.iterdir():
        assert key.encode() not in path.read_bytes()
        assert LOCAL.encode() not in path.read_bytes()


def test_keys_outlive_a_restart_and_a_removed_one_stays_removed(store: Store) -> None:
    async def check() -> None:
        keys = await _keys(store)
        (kept, _), (gone, removed) = await keys.add("a", ["read"], None, NOW), await keys.add("b", ["read"], None, NOW)
        assert await keys.remove(removed.id, NOW) == removed
        for each in (keys, await _keys(store)):
            assert each.find(kept) is not None
            assert each.find(gone) is None
        with pytest.raises(NotFound, match=removed.id):
            await keys.remove(removed.id, NOW)

    asyncio.run(check())


def test_the_key_of_this_machine_and_the_last_admin_key_stay(store: Store) -> None:
    async def check() -> None:
        await store.commit([writes.put(_record("mine", LOCAL, ("read",)), _record("old", "old", ("admin",)))])
        keys = await _keys(store)
        _, expired = await keys.add("gone", ["admin"], NOW - 1, NOW)
        with pytest.raises(Conflict, match="controller's machine"):
            await keys.remove(id_of(LOCAL), NOW)
        with pytest.raises(Conflict, match="last key"):
            await keys.remove("id-old", NOW)
        await keys.remove(expired.id, NOW)
        await keys.add("other", ["admin"], NOW + 1, NOW)
        await keys.remove("id-old", NOW)

    asyncio.run(check())


def _record(name: str, key: str, scopes: tuple[str, ...]) -> records.ApiKey:
    key_id = id_of(key) if key == LOCAL else f"id-{key}"
    return records.ApiKey(id=key_id, hash=hash_of(key), name=name, scopes=scopes, created_at=NOW)


@pytest.mark.parametrize("scopes", [[], ["everything"], ["read", "device"], ["open"]])
def test_scopes_that_no_key_has_are_refused(store: Store, scopes: list[str]) -> None:
    async def check() -> None:
        with pytest.raises(UserError, match=", ".join(SCOPES)):
            await (await _keys(store)).add("ann", scopes, None, NOW)

    asyncio.run(check())


def test_names_are_taken_once_and_keys_are_bounded(store: Store) -> None:
    async def check() -> None:
        keys = await _keys(store, api_keys=3)
        await keys.add("ann", ["read"], None, NOW)
        with pytest.raises(Conflict, match="'ann' is there already"):
            await keys.add("ann", ["read"], None, NOW)
        await keys.add("bob", ["read"], None, NOW)
        with pytest.raises(Conflict, match="there are 3 keys"):
            await keys.add("eve", ["read"], None, NOW)

    asyncio.run(check())


def test_the_last_use_is_known_at_once_and_written_down_when_asked_to(store: Store) -> None:
    async def check() -> None:
        keys = await _keys(store)
        _, record = await keys.add("ann", ["read"], None, NOW)
        keys.used(record, NOW + 5)

        async def stored() -> float | None:
            found = await store.read(reads.get(records.ApiKey, record.id))
            return found.last_used

        assert [key.last_used for key in keys.every() if key.id == record.id] == [NOW + 5]
        assert await stored() is None
        await keys.note()
        assert await stored() == NOW + 5
        assert [key.last_used for key in keys.every() if key.id == record.id] == [NOW + 5]

    asyncio.run(check())


class _Failing(Store):
    """Saves, or does not, and says that it failed."""

    mode = ""

    async def commit(self, batch: Any) -> list[Any]:
        if self.mode == "after":
            await super().commit(batch)
        if self.mode:
            raise Internal("the disk failed")
        return await super().commit(batch)


@pytest.mark.parametrize(("mode", "kept"), [("before", False), ("after", True)])
def test_after_a_commit_that_failed_memory_says_what_the_store_says(tmp_path: Path, mode: str, kept: bool) -> None:
    async def check(store: _Failing) -> None:
        keys = await _keys(store)
        key, record = await keys.add("ann", ["read"], None, NOW)
        store.mode = mode
        with pytest.raises(Internal):
            await keys.add("bob", ["read"], None, NOW)
        with pytest.raises(Internal):
            await keys.remove(record.id, NOW)
        store.mode = ""
        assert ("bob" in {each.name for each in keys.every()}) is kept
        assert (keys.find(key) is None) is kept

    store = _Failing(tmp_path / "lepta.db")
    try:
        asyncio.run(check(store))
    finally:
        store.close()


def test_many_at_once_get_names_and_ids_of_their_own(store: Store) -> None:
    async def check() -> None:
        keys = await _keys(store)
        made = await asyncio.gather(*(keys.add(f"key-{i}", ["read"], None, NOW) for i in range(20)))
        assert len({record.id for _, record in made}) == 20
        again = await asyncio.gather(*(keys.add("same", ["read"], None, NOW) for _ in range(5)), return_exceptions=True)
        assert sum(isinstance(each, Conflict) for each in again) == 4

    asyncio.run(check())
