"""API keys: made here, told once, kept as hashes. All of them stand in memory, so that a request costs no read."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import re
import secrets
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from controller import reads, records, writes
from controller.errors import Conflict, LeptaError, NotFound, UserError
from controller.settings import Limits
from controller.store import Store

KeyScope = Literal["read", "infer", "operate", "release", "admin"]
SCOPES: tuple[KeyScope, ...] = ("read", "infer", "operate", "release", "admin")
"""What a key may be good for; `admin` may do everything, and nothing else implies anything."""
_FORM = re.compile(r"lepta_([0-9a-f]{8})_[A-Za-z0-9_-]{43}")
_LOCAL = "this machine"


@functools.lru_cache(1024)
def hash_of(secret: str) -> str:
    """What is stored of a token: enough to know it again, useless to whoever reads the database."""
    return hashlib.sha256(secret.encode()).hexdigest()


def make() -> str:
    """A new key: its id in the middle is no secret, 256 random bits are."""
    return f"lepta_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}"


def id_of(key: str) -> str:
    """Of a key in an older form: from its hash."""
    found = _FORM.fullmatch(key)
    return found.group(1) if found else hash_of(key)[:8]


class ApiKeys:
    """Owned by the event loop. Times in seconds since 1970 are arguments."""

    def __init__(self, store: Store, limits: Limits, local: str) -> None:
        """`local` is the key that tools on this machine use."""
        self._store = store
        self._limits = limits
        self._local = local
        self._known: dict[str, records.ApiKey] = {}
        self._used: dict[str, float] = {}
        self._changing = asyncio.Lock()

    async def start(self, now: float) -> None:
        """Read them; the local key becomes an admin key where the database does not know it."""
        await self._reload()
        if hash_of(self._local) not in self._known:
            await self._save(self._record(self._local, _LOCAL, ("admin",), now, None))

    def find(self, key: str) -> records.ApiKey | None:
        """Whose key this is, expired or not."""
        return self._known.get(hash_of(key))

    def every(self) -> list[records.ApiKey]:
        """In the order of their making, with their last use as far as anybody knows."""
        found = sorted(self._known.values(), key=lambda r: (r.created_at, r.id))
        return [msgspec.structs.replace(r, last_used=self._used.get(r.id, r.last_used)) for r in found]

    def used(self, record: records.ApiKey, now: float) -> None:
        self._used[record.id] = now

    async def add(
        self, name: str, scopes: Sequence[str], expires_at: float | None, now: float
    ) -> tuple[str, records.ApiKey]:
        """A new key and its record; the key itself is told here and nowhere else."""
        if not scopes or not set(scopes) <= set(SCOPES):
            raise UserError(f"a key is good for one or more of {', '.join(SCOPES)}")
        async with self._changing:
            if any(record.name == name for record in self._known.values()):
                raise Conflict(f"a key called {name!r} is there already", "choose another name, or: lepta key ls")
            if len(self._known) >= self._limits.api_keys:
                raise Conflict(f"there are {len(self._known)} keys, and no more are kept", "lepta key rm ID")
            key = self._unused()
            record = self._record(key, name, scopes, now, expires_at)
            await self._save(record)
        return key, record

    async def remove(self, key_id: str, now: float) -> records.ApiKey:
        """Void at once. Raises NotFound, and Conflict for the key of this machine and the last one that may admit."""
        async with self._changing:
            record = next((r for r in self._known.values() if r.id == key_id), None)
            if record is None:
                raise NotFound(f"no API key has the id {key_id[:80]!r}", "lepta key ls")
            self._check_needed(record, now)
            await self._commit(writes.remove(records.ApiKey, record.id))
            del self._known[record.hash]
            self._used.pop(record.id, None)
        return record

    async def note(self) -> None:
        """Write down when keys were used since the last time."""
        async with self._changing:
            used, self._used = self._used, {}
            changed = []
            for record in list(self._known.values()):
                if record.id in used:
                    changed.append(msgspec.structs.replace(record, last_used=used[record.id]))
            if changed:
                await self._save(*changed)

    def _unused(self) -> str:
        taken = {record.id for record in self._known.values()}
        return next(key for key in iter(make, "") if id_of(key) not in taken)

    def _check_needed(self, record: records.ApiKey, now: float) -> None:
        if record.hash == hash_of(self._local):
            raise Conflict(
                "tools on the controller's machine use this key",
                "to replace it: stop the controller, delete api-token in its data folder, start it, remove this one",
            )
        others = (r for r in self._known.values() if r is not record)
        if "admin" in record.scopes and not any(
            "admin" in r.scopes and (r.expires_at is None or r.expires_at > now) for r in others
        ):
            raise Conflict("this is the last key that may administer", "add another first: lepta key add --scope admin")

    @staticmethod
    def _record(key: str, name: str, scopes: Sequence[str], now: float, expires_at: float | None) -> records.ApiKey:
        kept = tuple(scope for scope in SCOPES if scope in scopes)
        return records.ApiKey(
            id=id_of(key), hash=hash_of(key), name=name, scopes=kept, created_at=now, expires_at=expires_at
        )

    async def _save(self, *changed: records.ApiKey) -> None:
        await self._commit(writes.put(*changed))
        self._known.update((record.hash, record) for record in changed)

    async def _commit(self, write: writes.Write[Any]) -> None:
        try:
            await self._store.commit([write])
        except LeptaError:
            # Whether it was saved is not sure: the store knows.
            await self._reload()
            raise

    async def _reload(self) -> None:
        self._known = {record.hash: record for record in await self._store.read(reads.every(records.ApiKey))}
