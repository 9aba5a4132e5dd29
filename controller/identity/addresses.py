"""What this machine is called: its names and addresses, for the server's certificate and for what devices are told."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from controller.errors import UserError
from controller.settings import Settings

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?)*", re.I)


@dataclass(frozen=True)
class Names:
    public: str
    """The one that other machines are told."""
    every: tuple[str, ...]
    """All that the server's certificate is for."""


def names_of(settings: Settings) -> Names:
    """As this machine is now. Raises UserError for a --name that is neither a name nor an address."""
    return choose(settings, socket.gethostname(), machine_addresses())


def choose(settings: Settings, host_name: str, addresses: Sequence[str]) -> Names:
    """PURE: `addresses` of the machine's interfaces, in their order."""
    given = [_checked(name) for name in settings.names]
    host = [] if settings.everywhere else [_checked(settings.host)]
    own = [host_name] if _NAME.fullmatch(host_name) else []
    reachable = sorted((a for a in addresses if not ipaddress.ip_address(a).is_loopback), key=_rank)
    public = next(iter([*given, *host, *reachable, "127.0.0.1"]))
    return Names(public, tuple(dict.fromkeys([*given, *host, *own, *LOOPBACK, *sorted(addresses)])))


def machine_addresses() -> list[str]:
    """Of all interfaces, without the interface's name that the system adds to some."""
    found = []
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family in (socket.AF_INET, socket.AF_INET6):
                found.append(address.address.partition("%")[0])
    return list(dict.fromkeys(found))


def is_local(host: str) -> bool:
    """Only this machine can reach it. A name is looked up; raises OSError for one that nobody knows."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return all(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]).is_loopback for entry in found)


def bracketed(host: str) -> str:
    """As it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def stranger(address: str) -> str:
    """Whom a peer's address counts as: of IPv6 the network, where everybody has as many addresses as he likes."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return address if parsed.is_loopback else f"{ipaddress.IPv6Address(int(parsed) >> 64 << 64)}/64"


def is_loopback(address: str) -> bool:
    """Of a peer."""
    return address.startswith("127.") or address == "::1"


def _checked(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        pass
    if not _NAME.fullmatch(name):
        raise UserError(f"{name[:80]!r} is neither a name nor an address", "give --name as in fleet.example.org")
    return name.lower()


def _rank(address: str) -> tuple[bool, bool]:
    """IPv4 first; addresses that hold on one cable only come last."""
    parsed = ipaddress.ip_address(address)
    return (parsed.is_link_local, parsed.version == 6)
