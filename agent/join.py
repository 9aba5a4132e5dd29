"""`lepta-agent join`: trade a claim token for an identity, wait for approval where it is asked for.

The key and the note that a join began are on disk before the controller hears of them. After a lost answer or a kill
the same line, run again, shows the same key with the same token and is answered the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from agent import enroll, hardware, trust
from agent.clock import Clock
from agent.contract.faults import fault
from agent.contract.signing import PrivateKey, SignatureError
from agent.desk import Address, Desk, address_of, fetch_ca
from agent.enroll import EnrollError, Identity, Unreachable
from agent.settings import Limits
from firmware_profiles.profile import Facts

Say = Callable[[str], None]


class Invitation(NamedTuple):
    """What the operator gave this device."""

    controller: str
    token: str
    fingerprint: str = ""
    name: str = ""
    insecure: bool = False


def join(folder: Path, invitation: Invitation, facts: Facts, limits: Limits) -> Identity:
    """Get an identity, approved or pending, and keep it in `folder`. Raises EnrollError with what to do."""
    address = checked(invitation)
    key = _key(folder)
    enroll.begin(folder, address.url)
    fault("join.begun")
    ca = fetch_ca(address, invitation.fingerprint, limits.http) if address.scheme == "https" else ""
    here = hardware.identify()
    name = invitation.name or hardware.default_name(here)
    request = {
        "token": invitation.token,
        "name": name or None,
        "derived": not invitation.name,
        "csr": trust.certification_request(key),
        "hardware": here,
        "facts": facts,
    }
    clock = Clock(folder)
    answer = Desk(address, ca, clock, limits.http).enroll(request)
    fault("join.answered")
    identity = msgspec.structs.replace(answer, ca=ca, hardware=here)
    return _kept(folder, identity, clock)


def ask_again(folder: Path, identity: Identity, timeout: float, clock: Clock) -> Identity:
    """The identity with a new certificate, or still pending; kept in `folder`. Raises EnrollError."""
    desk = Desk(address_of(identity.controller), identity.ca, clock, timeout)
    answer = desk.certificate(identity.device_token, trust.certification_request(_key(folder)))
    if answer.agent != identity.agent:
        raise EnrollError(f"the controller calls this device {answer.agent!r} now; wipe it and join anew")
    if answer.state == "pending":
        return identity
    token = answer.device_token or identity.device_token
    renewed = msgspec.structs.replace(answer, ca=identity.ca, hardware=identity.hardware, device_token=token)
    if identity.state == "approved":
        # A certificate is the controller's to renew; whose models are genuine is the root key's to say.
        renewed = msgspec.structs.replace(renewed, release_key=identity.release_key, root=identity.root)
    return _kept(folder, renewed, clock)


def wait_for_approval(
    folder: Path, identity: Identity, limits: Limits, say: Say, sleep: Callable[[float], None] = time.sleep
) -> Identity:
    """Ask until an operator approved. Raises EnrollError if the device is refused; it may be killed at any time."""
    if identity.state == "approved":
        return identity
    say(f"waiting for approval; on the controller: lepta device approve {identity.agent}")
    say(f"this device's key: {_key(folder).public.id}")
    clock, delay = Clock(folder), limits.approval_first
    while True:
        sleep(delay)
        delay = min(delay * 2.0, limits.approval_most)
        try:
            answer = ask_again(folder, identity, limits.http, clock)
        except Unreachable as error:
            say(str(error))
            continue
        if answer.state == "approved":
            say(f"approved as {answer.agent}")
            return answer


def checked(invitation: Invitation) -> Address:
    """The controller's address, if the token may be sent there. Raises EnrollError."""
    address = address_of(invitation.controller)
    if address.scheme == "https" and not invitation.fingerprint:
        raise EnrollError(
            f"{address.url}: --ca-fingerprint is needed to know that it is your controller; `lepta device add` shows it"
        )
    if address.scheme == "http" and not address.loopback and not invitation.insecure:
        raise EnrollError(
            f"{address.url}: without TLS the token and every model could be read and changed on the way. Start the "
            "controller with `lepta up --lan` and use its https:// URL, or say --insecure"
        )
    return address


def _key(folder: Path) -> PrivateKey:
    try:
        return PrivateKey.load_or_create(folder / enroll.KEY)
    except (OSError, SignatureError) as error:
        raise EnrollError(f"the agent's key cannot be kept: {error}") from error


def _kept(folder: Path, identity: Identity, clock: Clock) -> Identity:
    try:
        enroll.keep(folder, identity)
    except OSError as error:
        raise EnrollError(f"the identity cannot be kept in {folder}: {error.strerror}; run the same again") from error
    if identity.not_after:
        clock.certified(identity.not_before, identity.not_after)
    clock.save()
    return identity
