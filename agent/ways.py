"""PURE: by which ways a blob may come to this device, which first, and when one is left for the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal
from urllib.parse import urljoin, urlsplit

import msgspec

Way = str
"""`mqtt`, `http` (the controller's own files), or the address of a mirror, which ends with a slash."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What this device was told about fetching. `controller`: is its HTTP address known?"""

    fetch: Literal["mqtt", "http"] = "mqtt"
    http_mb: int = 0
    mirrors: tuple[Way, ...] = ()
    controller: bool = False
    slow_s: float = 15.0
    slow_kb: float = 16.0
    tries: int = 3


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One blob on its way: the ways that are left, the one in use first, and how it does."""

    ways: tuple[Way, ...]
    public: bool = True
    since: float | None = None
    """None: nothing was asked for yet, or the connection is away."""
    arrived: int = 0
    failures: int = 0
    """In a row, without a byte in between."""


def order(choice: Choice, size: int | None, public: bool = True) -> tuple[Way, ...]:
    """Every way for a blob of this size, best first. Without a size it is small; what is not public no mirror has."""
    large = size is not None and choice.http_mb > 0 and size >= choice.http_mb << 20
    first: Way = "http" if choice.controller and (choice.fetch == "http" or large) else "mqtt"
    ways: list[Way] = [first]
    if choice.controller or first == "http":
        ways.append("mqtt" if first == "http" else "http")
    if public and size is not None:
        ways[:0] = choice.mirrors
    return tuple(ways)


def mirrors(own: str, told: Sequence[str], controller: str) -> tuple[Way, ...]:
    """The device's own mirror first, then those that its controller told it. Relative addresses belong to the
    controller's; what is no http:// or https:// address then is left out."""
    found = (_joined(controller, address) for address in (own, *told) if address)
    return tuple(dict.fromkeys(address for address in found if origin(address)))


def _joined(controller: str, address: str) -> str:
    try:
        return urljoin(f"{controller}/", address).rstrip("/") + "/"
    except ValueError:
        return ""


def origin(address: str) -> tuple[str, str, int] | None:
    """Scheme, host and port: whoever answers there. None for what is no http:// or https:// address."""
    try:
        parts = urlsplit(address)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None
    if port is None or parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    return parts.scheme, parts.hostname, port


def asked(turn: Turn, arrived: int, now: float) -> Turn:
    """The way in use was asked for something."""
    return turn if turn.since is not None else msgspec.structs.replace(turn, since=now, arrived=arrived)


def paused(turn: Turn) -> Turn:
    return msgspec.structs.replace(turn, since=None)


def looked(turn: Turn, choice: Choice, arrived: int, now: float) -> Turn:
    """How does it do? A slow way is left, if another one is."""
    if turn.since is None or now - turn.since < choice.slow_s:
        return turn
    if len(turn.ways) > 1 and arrived - turn.arrived < choice.slow_kb * 1024 * (now - turn.since):
        return left(turn)
    return msgspec.structs.replace(turn, since=now, arrived=arrived)


def failed(turn: Turn, choice: Choice, arrived: int, *, for_good: bool) -> Turn:
    """It broke off, or (`for_good`) says that it will never work. The last way is not left for a broken line."""
    failures = 1 if arrived > turn.arrived else turn.failures + 1
    if for_good or (failures >= choice.tries and len(turn.ways) > 1):
        return left(turn)
    return msgspec.structs.replace(turn, failures=failures, arrived=max(arrived, turn.arrived))


def left(turn: Turn) -> Turn:
    """The next way; none may be left."""
    return Turn(ways=turn.ways[1:], public=turn.public)
