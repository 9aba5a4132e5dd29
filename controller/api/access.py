"""Who may call: API keys and device tokens, what each route asks for, and how often."""

from __future__ import annotations

import time
from typing import Any, Literal

import msgspec
from fastapi import Depends, Request

from controller import records
from controller.errors import Forbidden, TooMany, Unauthorized
from controller.identity.addresses import is_loopback, stranger
from controller.identity.api_keys import SCOPES
from controller.identity.api_keys import hash_of as hash_of
from controller.identity.rates import Rate, Rates
from controller.parts import Controller

Scope = Literal["open", "device", "pending", "read", "infer", "operate", "release", "admin"]
"""`open` asks for nothing; `device` is an approved device with its token, `pending` one that waits for approval; the
others are scopes of API keys, of which `admin` may do what any key may."""
_KEYS = "send Authorization: Bearer KEY; `lepta key add` makes keys, the first is in the data folder's api-token"
_DEVICES = frozenset({"device", "pending"})


class Caller(msgspec.Struct, frozen=True):
    """Who called: `request.state.caller` in a route."""

    kind: Literal["open", "key", "device"]
    name: str = ""
    """Of the key or the device."""
    scopes: frozenset[str] = frozenset()
    device: records.Device | None = None
    address: str = ""
    """The peer's; of IPv6 its network."""


def controller_of(request: Request) -> Controller:
    controller: Controller = request.app.state.controller
    return controller


def caller_of(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


class Needs:
    """What a caller must be allowed to do: any one of `scopes`. Every route declares exactly one of these."""

    def __init__(self, *scopes: Scope) -> None:
        self.scopes = frozenset(scopes)
        self.open = "open" in self.scopes
        self.of_keys = self.scopes & frozenset(SCOPES)
        self.of_devices = self.scopes & _DEVICES

    async def __call__(self, request: Request) -> None:
        # A coroutine: FastAPI would send a plain function to a thread.
        access: Access = request.app.state.access
        peer = request.client.host if request.client else ""
        request.state.caller = access.admit(peer, request.headers.get("authorization", ""), self)


def needs(*scopes: Scope) -> list[Any]:
    """For a route's `dependencies`."""
    return [Depends(Needs(*scopes))]


OPEN = needs("open")
READ = needs("read")
INFER = needs("infer")
OPERATE = needs("operate")
RELEASE = needs("release")
ADMIN = needs("admin")
DEVICE = needs("device")
JOINING = needs("device", "pending")


class Access:
    """Lets callers in. One who is known costs no read of the database."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._limits = controller.settings.limits
        # Apart, so that no number of strangers makes us forget those who are known.
        self._callers, self._strangers = Rates(self._limits.rates_kept), Rates(self._limits.rates_kept)
        self._device_names: dict[str, str] = {}

    def admit(self, peer: str, authorization: str, wanted: Needs) -> Caller:
        """`peer`: the address that asks; `authorization`: its header. Raises Unauthorized, Forbidden or TooMany."""
        address = stranger(peer)
        if wanted.open:
            self._count_stranger(address)
            return Caller("open", address=address)
        token = _bearer(authorization)
        key = self._controller.api_keys.find(token)
        if key is not None:
            return self._key(key, wanted, address)
        device = self._device_of(token)
        if device is not None:
            return self._device(device, wanted, address)
        raise self._refusal(address, "the API key is wrong" if token else "no API key was sent")

    def _key(self, key: records.ApiKey, wanted: Needs, address: str) -> Caller:
        now = time.time()
        if key.expires_at is not None and key.expires_at <= now:
            raise self._refusal(address, f"the API key {key.name!r} has expired")
        self._count("key ", key.id, self._limits.key_rate, "the API key {!r} is used", key.name)
        if wanted.of_keys.isdisjoint(key.scopes) and not (wanted.of_keys and "admin" in key.scopes):
            raise Forbidden(
                f"the API key {key.name!r} may {_list(key.scopes)}; this is {_for(wanted)}", _fitting(wanted)
            )
        self._controller.api_keys.used(key, now)
        return Caller("key", key.name, frozenset(key.scopes), address=address)

    def _device(self, device: records.Device, wanted: Needs, address: str) -> Caller:
        self._count("device ", device.name, self._limits.device_rate, "the device {} asks", device.name)
        if device.state == "revoked":
            raise Forbidden(f"the device {device.name} was revoked", "it may join anew: lepta device add")
        if not wanted.of_devices:
            raise Forbidden(f"{device.name} is a device; this is {_for(wanted)}", _fitting(wanted))
        if device.state == "pending" and "pending" not in wanted.of_devices:
            raise Forbidden(f"the device {device.name} waits for approval", f"lepta device approve {device.name}")
        return Caller("device", device.name, wanted.of_devices, device, address)

    def _device_of(self, token: str) -> records.Device | None:
        """As the loop knows it. Looked for in memory alone, so that nobody can keep the database busy with guesses."""
        if not token:
            return None
        devices, digest = self._controller.fleet.devices, hash_of(token)
        known = devices.get(self._device_names.get(digest, ""))
        if known is None or known.record.device_token_hash != digest:
            known = next((each for each in devices.all() if each.record.device_token_hash == digest), None)
            if known is not None:
                if len(self._device_names) >= self._limits.devices:
                    self._device_names.clear()
                self._device_names[digest] = known.name
        return None if known is None else known.record

    def _refusal(self, address: str, why: str) -> Unauthorized:
        self._count_stranger(address)
        return Unauthorized(why, _KEYS)

    def _count_stranger(self, address: str) -> None:
        wait = self._strangers.take(address, self._stranger_rate(address), time.monotonic())
        if wait:
            raise _too_many(f"{address} asks without an API key", wait)

    def _stranger_rate(self, address: str) -> Rate:
        """Everybody on this machine shares an address."""
        return self._limits.key_rate if is_loopback(address) else self._limits.stranger_rate

    def _count(self, kind: str, who: str, rate: Rate, told: str, name: str) -> None:
        wait = self._callers.take(kind + who, rate, time.monotonic())
        if wait:
            raise _too_many(told.format(name), wait)


def _too_many(told: str, wait: float) -> TooMany:
    return TooMany(f"{told} too often", "wait as long as Retry-After says", retry_s=wait)


def _for(wanted: Needs) -> str:
    if not wanted.of_keys:
        return "for devices with their token"
    return f"for keys that may {_list(tuple(s for s in SCOPES if s in wanted.of_keys))}"


def _fitting(wanted: Needs) -> str:
    """Which scopes would do."""
    if not wanted.of_keys:
        return "agents call it by themselves"
    would_do = [scope for scope in SCOPES if scope in wanted.of_keys or scope == "admin"]
    return f"a key with one of these scopes would do: {', '.join(would_do)}; lepta key add"


def _list(scopes: tuple[str, ...]) -> str:
    return " or ".join(scopes)


def _bearer(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
