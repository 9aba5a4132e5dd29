"""`lepta-agent join`: trade a claim token for an identity, wait for approval where it is asked for.

The key and the note that a join began are on disk before the controller hears of them. After a lost answer or a kill
the same line, run again, shows the same key with the same token and is answered the same.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from agent import enroll, hardware, trust
from agent.cli import OK, REFUSED, UNREACHABLE, USAGE, CliError
from agent.clock import Clock
from agent.contract.faults import fault
from agent.contract.signing import PrivateKey, SignatureError
from agent.desk import Address, Desk, address_of, fetch_ca, same_controller
from agent.enroll import EnrollError, Identity, Unreachable
from agent.settings import AgentSettings, Limits
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


def run(options: argparse.Namespace) -> int:
    """`lepta-agent join URL`."""
    from agent import start
    from agent.service.files import hand_over

    settings = start.settings_from(options)
    try:
        identity = _joined(options, settings)
        if identity is None:
            with start.own_folder(settings.folder):
                identity = _joined(options, settings) or _join_now(options, settings)
    except Unreachable as error:
        raise CliError(UNREACHABLE, f"{error}") from error
    except EnrollError as error:
        raise CliError(REFUSED, f"{error}") from error
    hand_over(settings.folder)
    return _go_on(options, settings)


def _join_now(options: argparse.Namespace, settings: AgentSettings) -> Identity:
    from agent import start

    identity = enroll.stored(settings.folder)
    if identity is None:
        token = _token(options)
        fingerprint = settings.ca_fingerprint
        invitation = Invitation(settings.controller, token, fingerprint, settings.name, settings.insecure)
        identity = join(settings.folder, invitation, start.facts_of(settings), settings.limits)
        print(f"joined {identity.controller} as {identity.agent}")
    try:
        return wait_for_approval(settings.folder, identity, settings.limits, lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        raise CliError(REFUSED, "not approved yet; the same line goes on waiting, and so does `run`") from None


def _joined(options: argparse.Namespace, settings: AgentSettings) -> Identity | None:
    """The identity that is here already and needs nothing more. Raises CliError where it is of another controller."""
    known = enroll.stored(settings.folder)
    if known is None:
        return None
    wipe = f"lepta-agent wipe --data {settings.folder}"
    if not same_controller(known.controller, options.url):
        message = f"this device joined {known.controller} as {known.agent}; to leave it for {options.url}: {wipe}"
        raise CliError(USAGE, message)
    if options.name and options.name != known.agent:
        raise CliError(USAGE, f"this device joined as {known.agent}, not as {options.name}; to join anew: {wipe}")
    if known.state == "pending":
        return None
    print(f"joined {known.controller} already, as {known.agent}; nothing to do")
    return known


def _go_on(options: argparse.Namespace, settings: AgentSettings) -> int:
    """What comes after joining: run, install, or the line that the user types next."""
    if options.install:
        from agent.service import install

        return install.install(options)
    if options.run:
        from agent import start

        print("serving; then, on the controller, unless it has a model: lepta deploy MODEL.keras --data DATA.npz")
        print(f"Ctrl-C stops it; to start it with the machine: {_program()} install", flush=True)
        return start.run(options)
    default = settings.folder == AgentSettings().folder
    data = "" if default else f" --data {settings.folder}"
    print(f"next: {_program()} run{data}")
    if Path("/run/systemd/system").is_dir():
        sudo = "" if os.geteuid() == 0 else "sudo "
        print(f"or, as a service that starts with the machine: {sudo}{_program()} install")
    return OK


def _program() -> str:
    """How this program was called: in a virtual environment its bare name would not be found."""
    called = sys.argv[0]
    return called if Path(called).name == "lepta-agent" else "lepta-agent"


def _token(options: argparse.Namespace) -> str:
    from agent import start

    if options.token_file:
        return start.token_in(str(options.token_file))
    token = sys.stdin.readline() if options.token == "-" else options.token or ""
    if not token.strip():
        raise CliError(USAGE, "a claim token is needed: --token - reads it from standard input, or --token-file FILE")
    return str(token.strip())


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
