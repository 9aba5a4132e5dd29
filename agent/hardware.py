"""Which machine this is: an id that stays when the system is installed anew, and differs where a disk was copied.

The board's own serial number comes first, then the id that the system was given when it was installed, then the address
of the first real network card. None of them leaves the machine: the id is an HMAC of it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterator
from pathlib import Path

_PURPOSE = b"lepta"
_ROOT = "LEPTA_HARDWARE_ROOT"
_SERIALS = ("proc/device-tree/serial-number", "sys/firmware/devicetree/base/serial-number")
_LOCALLY_GIVEN = 0x02


def identify(root: Path | None = None) -> str:
    """32 hex digits, or "" where nothing tells this machine from others (most containers).

    `root` is where `/proc`, `/etc` and `/sys` are; tests name another place in the environment.
    """
    place = root or Path(os.environ.get(_ROOT, "/"))
    for source in (_serial, _machine_id, _address):
        found = source(place)
        if found:
            return hmac.new(found, _PURPOSE, hashlib.sha256).hexdigest()[:32]
    return ""


def default_name(hardware: str) -> str:
    """A device's name where nobody chose one; "" leaves it to the controller."""
    return f"device-{hardware[:8]}" if hardware else ""


def _serial(root: Path) -> bytes:
    return next((serial for path in _SERIALS if (serial := _read(root / path)).strip(b"0")), b"")


def _machine_id(root: Path) -> bytes:
    found = _read(root / "etc/machine-id")
    return found if len(found) == 32 else b""  # Before the first boot is over it says "uninitialized".


def _address(root: Path) -> bytes:
    return next(iter(_addresses(root)), b"")


def _addresses(root: Path) -> Iterator[bytes]:
    """Of cards, first the one that the kernel found first. Bridges, tunnels and containers make theirs up."""
    try:
        cards = [path for path in (root / "sys/class/net").iterdir() if (path / "device").exists()]
    except OSError:
        return
    for card in sorted(cards, key=lambda path: (_number(_read(path / "ifindex")), path.name)):
        address = _read(card / "address")
        octets = address.split(b":")
        if len(octets) == 6 and any(octet != b"00" for octet in octets) and not int(octets[0], 16) & _LOCALLY_GIVEN:
            yield address


def _number(text: bytes) -> int:
    return int(text) if text.isdigit() else 0


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes().strip(b"\0\n\t ")
    except OSError:
        return b""
