"""PURE: where the local endpoint listens, and which callers it takes for programs of this device."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})


class PlaceError(ValueError):
    """An address that cannot be listened on."""


class Place(NamedTuple):
    host: str
    port: int
    """0: any that is free."""
    open: bool = False
    """Other machines may ask too."""


def parse(text: str, *, beyond_loopback: bool) -> Place:
    """Read `127.0.0.1:8001`, `localhost:8001` or `[::1]:8001`. Raises PlaceError."""
    parts = urlsplit(f"//{text}")
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if not host or port is None or parts.netloc != text or "@" in text:
        raise PlaceError(f"{text!r} is no address: HOST:PORT is expected, such as 127.0.0.1:8001")
    if not is_loopback(host) and not beyond_loopback:
        raise PlaceError(
            f"{host} can be reached from other machines, and the local endpoint has neither TLS nor authentication: "
            "use 127.0.0.1, or set serve_beyond_loopback = true in agent.toml where the network is trusted"
        )
    return Place("127.0.0.1" if host == "localhost" else host, port, not is_loopback(host))


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def foreign(place: Place, headers: Mapping[str, str]) -> str:
    """Why a caller is refused; empty if it is not. A page of another site in a browser on this device reaches loopback
    too: Host (DNS rebinding) and Origin tell."""
    if place.open:
        return ""
    host = _name("//" + headers.get("host", "localhost"))
    if host not in _NAMES and host != place.host:
        return f"Host {host!r} is not this device: ask it by 127.0.0.1 or localhost"
    origin = headers.get("origin")
    if origin is not None and _name(origin) not in _NAMES:
        return "pages of other sites may not ask here"
    return ""


@lru_cache(64)
def _name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
