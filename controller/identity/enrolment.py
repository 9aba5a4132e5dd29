"""PURE: who may join, under which name, and what becomes of a device that asks again.

A device asks with a claim and proves its key. The answer may be lost on its way: the same key with the same claim gets
the same device again, and uses up nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from controller.errors import Busy, Conflict, Forbidden
from controller.records import Claim, Device, DeviceState
from firmware_profiles.profile import Facts

RESERVED = frozenset({"lepta"})
"""Names that neither a device nor a client can have: the controller logs in at the broker under them."""
NAME_LENGTH = 63
_SUFFIXES = 1000


@dataclass(frozen=True)
class Application:
    """What a device asks with, checked. `token_hash` is for the device token that it will get."""

    claim: str
    """Hash of the claim token."""
    name: str
    derived: bool
    """Nobody chose the name: it may be changed."""
    public_key: str
    """PEM; the device has proved that it holds the private one."""
    hardware: str
    facts: Facts
    token_hash: str
    broker_user: str = ""


@dataclass(frozen=True)
class Room:
    """How many there are, and how many there may be."""

    devices: int
    devices_most: int
    pending: int
    pending_most: int


def decide(
    asked: Application,
    claim: Claim | None,
    mine: Device | None,
    is_taken: Callable[[str], bool],
    room: Room,
    now: float,
) -> Device:
    """The device as it is from now on. `claim`: the one that is used up for this, or None for a device that asks again
    with the claim that it joined with. `mine`: the device that has this key. `is_taken` knows the names of devices and
    clients. Raises Forbidden, Conflict or Busy.
    """
    if claim is not None and claim.hardware and claim.hardware != asked.hardware:
        raise Forbidden(
            "this claim is for other hardware",
            "make one for this device (`lepta-agent facts` shows its id): lepta device add --hardware ID",
        )
    if mine is not None:
        return _again(asked, claim, mine)
    approved = claim is None or claim.approve
    if room.devices >= room.devices_most:
        raise Busy(f"{room.devices} devices are enrolled: no more fit", "remove some: lepta device rm NAME")
    if not approved and room.pending >= room.pending_most:
        raise Busy(f"{room.pending} devices wait to be approved", "approve or remove some: lepta device ls")
    return Device(
        name=_free_name(asked, is_taken),
        public_key=asked.public_key,
        device_token_hash=asked.token_hash,
        broker_user=asked.broker_user,
        state="approved" if approved else "pending",
        hardware=asked.hardware,
        claim=asked.claim,
        facts=asked.facts,
        labels=claim.labels if claim else {},
        simulated=bool(asked.facts.overridden),
        enrolled_at=now,
    )


def revoked(name: str) -> Forbidden:
    return Forbidden(f"device {name!r} was revoked", f"lepta device rm {name}, then join with a new claim")


def _again(asked: Application, claim: Claim | None, mine: Device) -> Device:
    """Its key is known: the answer was lost, or it joins once more with another claim."""
    if mine.state == "revoked":
        raise revoked(mine.name)
    if not asked.derived and asked.name != mine.name:
        raise Conflict(
            f"this device is enrolled already, as {mine.name!r}",
            f"join as --name {mine.name}, or remove it there first",
        )
    fresh = msgspec.structs.replace(mine, device_token_hash=asked.token_hash, hardware=asked.hardware)
    if claim is None:
        return fresh
    state: DeviceState = "approved" if claim.approve else mine.state
    return msgspec.structs.replace(fresh, claim=asked.claim, state=state, labels={**mine.labels, **claim.labels})


def _free_name(asked: Application, is_taken: Callable[[str], bool]) -> str:
    for name in _names(asked.name):
        if name not in RESERVED and not is_taken(name):
            return name
        if not asked.derived:
            raise Conflict(
                f"the name {name!r} is taken",
                "choose another with --name, or remove what has it: lepta device rm, lepta client rm",
            )
    raise Conflict(f"{_SUFFIXES} devices are called like {asked.name!r}", "choose a name with --name")


def _names(wish: str) -> Iterator[str]:
    yield wish
    for number in range(2, _SUFFIXES):
        yield f"{wish[: NAME_LENGTH - 5]}-{number}"
