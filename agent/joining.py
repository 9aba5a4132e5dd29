"""`lepta-agent join`: join, and say or do what comes next."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from agent import enroll
from agent.cli import OK, REFUSED, UNREACHABLE, USAGE, CliError
from agent.desk import same_controller
from agent.enroll import EnrollError, Identity, Unreachable
from agent.join import Invitation, join, wait_for_approval
from agent.preparing import facts_of, own_folder, settings_from, token_in
from agent.settings import AgentSettings


def run(options: argparse.Namespace) -> int:
    """`lepta-agent join URL`."""
    from agent.service.files import hand_over

    settings = settings_from(options)
    try:
        identity = _joined(options, settings)
        if identity is None:
            with own_folder(settings.folder):
                identity = _joined(options, settings) or _join_now(options, settings)
    except Unreachable as error:
        raise CliError(UNREACHABLE, f"{error}") from error
    except EnrollError as error:
        raise CliError(REFUSED, f"{error}") from error
    hand_over(settings.folder)
    return _go_on(options, settings)


def _join_now(options: argparse.Namespace, settings: AgentSettings) -> Identity:
    identity = enroll.stored(settings.folder)
    if identity is None:
        token = _token(options)
        fingerprint = settings.ca_fingerprint
        invitation = Invitation(settings.controller, token, fingerprint, settings.name, settings.insecure)
        identity = join(settings.folder, invitation, facts_of(settings), settings.limits)
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
    if options.token_file:
        return token_in(str(options.token_file))
    token = sys.stdin.readline() if options.token == "-" else options.token or ""
    if not token.strip():
        raise CliError(USAGE, "a claim token is needed: --token - reads it from standard input, or --token-file FILE")
    return str(token.strip())
