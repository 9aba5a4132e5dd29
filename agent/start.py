"""`lepta-agent run`: puts one agent together from its configuration and runs it until a signal."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import secrets
import signal
import socket
import sys
import time
import urllib.parse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from agent import enroll, hardware
from agent.blobs import Blobs
from agent.boots import BootCount
from agent.cli import DATA, OK, REFUSED, UNREACHABLE, USAGE, CliError
from agent.clock import Clock
from agent.contract import heap, wire
from agent.disk import RealDisk
from agent.keeper import Keeper
from agent.link import Link
from agent.loop import Loop
from agent.memory import HEAP_BYTES, trim
from agent.pointers import PointerError, PointerFile
from agent.preparing import facts_of, own_folder, settings_from, token_in
from agent.service.notify import Notifier
from agent.service.presence import Presence
from agent.settings import AgentSettings, Limits
from agent.supervisor import Supervisor
from agent.workers import ZygoteWorkers
from firmware_profiles.profile import Facts, builtin, match

if TYPE_CHECKING:
    from agent.join import Invitation
    from agent.local.server import Endpoint
    from agent.renewal import Renewal

_log = logging.getLogger("lepta.agent")
_MOST_BUGS = 20
_SWITCH_S = 0.0002
_COLLECT = (2_000, 10, 10)
"""Young objects in larger lots than by default."""


def run(options: argparse.Namespace) -> int:
    """`lepta-agent run`: enroll if needed, then serve until SIGTERM or SIGINT. Returns the exit status."""
    settings = settings_from(options)
    _log_somewhere(settings)
    heap.keep(HEAP_BYTES)
    with own_folder(settings.folder):
        here = facts_of(settings)
        loop = Loop()
        workers = ZygoteWorkers(loop, here.runtimes)
        if not here.runtimes:
            _log.error("no interpreter is installed; this device can be seen but serves nothing")
        notifier = Notifier.of(os.environ, os.getpid())
        identity = _identity(settings, here, notifier)
        workers.warm()
        try:
            clock = Clock(settings.folder, until=identity.not_after)
            keeper = Keeper(loop, PointerFile(settings.folder, RealDisk()))
            supervisor = assemble(loop, workers, settings, identity, here, clock, keeper)
        except PointerError as error:
            workers.close()
            raise CliError(DATA, str(error)) from error
        endpoint = _endpoint(loop, settings, supervisor, workers, clock)
        boots = BootCount(loop, keeper, settings.limits)
        presence = Presence(loop, settings.folder, supervisor, notifier, settings.limits)
        _log.info("agent %s, data in %s", identity.agent, settings.folder)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: loop.call_soon(presence.stop))
        boots.start()
        presence.start()
        if endpoint is not None:
            endpoint.start()
        renewal = _renewal(loop, settings, identity, clock) if identity.broker.tls else None
        _settle()
        status = _turn(loop, lambda: supervisor.stopped)
        boots.stop()
        if renewal is not None:
            renewal.stop()
        if endpoint is not None:
            endpoint.close()
        presence.close()
        loop.close()
    return status


def _settle() -> None:
    """What the start has made stays for good; from now on, nothing of the interpreter's own keeps a request waiting."""
    # Disk and downloads are on threads: by Python's default, a request would wait 5 ms for each of their turns.
    sys.setswitchinterval(_SWITCH_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT)
    trim()


def _turn(loop: Loop, over: Callable[[], bool]) -> int:
    """Run the loop until `over`. A bug in one callback must not take the serving models down, many must."""
    bugs = 0
    while not over():
        try:
            loop.run_once()
        except Exception:
            bugs += 1
            _log.exception("a bug in the agent (%d of %d allowed); please report it", bugs, _MOST_BUGS)
            if bugs == _MOST_BUGS:
                raise
    return OK


def assemble(
    loop: Loop,
    workers: ZygoteWorkers,
    settings: AgentSettings,
    identity: enroll.Identity,
    here: Facts,
    clock: Clock,
    keeper: Keeper,
) -> Supervisor:
    """One supervisor with everything real but what is given."""
    return Supervisor(
        loop=loop,
        link=link_to(loop, settings, identity, clock),
        workers=workers,
        blobs=Blobs(settings.folder, RealDisk(), settings.limits.disk_mb << 20, settings.limits.reserve_mb << 20),
        keeper=keeper,
        identity=identity,
        settings=settings,
        facts=here,
        new_id=lambda: secrets.token_hex(8),
        clock=clock,
    )


def _endpoint(
    loop: Loop, settings: AgentSettings, supervisor: Supervisor, workers: ZygoteWorkers, clock: Clock
) -> Endpoint | None:
    """Bound already, so that a port in use is told at once."""
    if not settings.serve:
        return None
    from agent.local import place, server  # Here, as most devices need no such door.

    try:
        return server.Endpoint(
            loop,
            supervisor,
            place.parse(settings.serve, beyond_loopback=settings.serve_beyond_loopback),
            settings.limits,
            clock.now,
        )
    except (place.PlaceError, server.EndpointError) as error:
        workers.close()
        raise CliError(USAGE, f"--serve: {error}") from error


def _renewal(loop: Loop, settings: AgentSettings, identity: enroll.Identity, clock: Clock) -> Renewal:
    from agent.renewal import Renewal

    return Renewal(loop, settings, identity, clock)


def link_to(loop: Loop, settings: AgentSettings, identity: enroll.Identity, clock: Clock | None = None) -> Link:
    """The connection to the identity's broker, with TLS if it says so."""
    broker, folder = identity.broker, settings.folder
    if not broker.host:
        host = urllib.parse.urlsplit(identity.controller).hostname or ""
        broker = msgspec.structs.replace(broker, host=host)
    if not broker.tls:
        return Link(loop, broker, identity.agent, settings.limits, connect=partial(dial, broker.path))
    from agent.trust import Door  # Here, as without TLS it is never needed.

    clock = clock or Clock(folder)
    if broker.public:
        return Link(loop, broker, identity.agent, settings.limits, connect=Door("", clock).connect)
    enroll.lay_out(folder, identity)
    clock.at_least(identity.not_before)
    door = Door(identity.ca, clock, (folder / enroll.CERTIFICATE, folder / enroll.KEY))
    return Link(loop, broker, identity.agent, settings.limits, connect=door.connect)


def dial(path: str, address: tuple[str, int], timeout: float) -> socket.socket:
    """The broker's Unix socket at `path`, or its address where that cannot be opened. Raises OSError."""
    return wire.near(path, timeout) or socket.create_connection(address, timeout)


def show_facts(options: argparse.Namespace) -> int:
    """`lepta-agent facts`."""
    settings = settings_from(options)
    here = facts_of(settings)
    print("Facts")
    for name, value in msgspec.to_builtins(here).items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        print(f"  {name:<14}{shown if shown not in ('', {}) else '-'}{'  (set)' if name in here.overridden else ''}")
    print(f"  {'hardware':<14}{hardware.identify() or '-'}")
    for profile in builtin().values():
        fit = match(profile, here)
        print(f"\nProfile {profile.name}: {'fits' if fit.fits else 'does not fit'}")
        for reason in fit.reasons:
            print(f"  {reason}")
    return OK


def _identity(settings: AgentSettings, here: Facts, notifier: Notifier) -> enroll.Identity:
    """The stored one; an enrolled agent starts without its controller."""
    try:
        known = _usable(settings, enroll.stored(settings.folder))
        if known is not None and known.state == "approved":
            return known
        from agent import join  # What an enrolled agent never needs: TLS by hand, HTTP.

        if known is None:
            known = join.join(settings.folder, _invitation(settings), here, settings.limits)
            _log.info("joined %s as %s", known.controller, known.agent)
        told = f"waiting for approval; on the controller: lepta device approve {known.agent}"
        patient = partial(_sleep_watched, notifier, told, settings.limits)
        return join.wait_for_approval(settings.folder, known, settings.limits, _log.warning, patient)
    except enroll.Unreachable as error:
        raise CliError(UNREACHABLE, str(error)) from error
    except enroll.EnrollError as error:
        raise CliError(REFUSED, str(error)) from error


def _sleep_watched(notifier: Notifier, told: str, limits: Limits, seconds: float) -> None:
    """A manager that waits for us to be ready hears why it takes so long, and goes on waiting."""
    notifier.status(told)
    # Until the next word: this sleep, and a question at every address of the controller.
    notifier.patience(seconds + 4 * limits.http)
    time.sleep(seconds)


def _usable(settings: AgentSettings, known: enroll.Identity | None) -> enroll.Identity | None:
    """The identity, unless it was copied here from another machine: two devices under one name put each other out."""
    here = hardware.identify()
    if known is None or not known.hardware or not here or known.hardware == here:
        return known
    if settings.controller and settings.token_file:
        _log.warning("the data folder was copied from another machine (%s): joining anew", known.agent)
        enroll.forget(settings.folder)
        return None
    wipe = f"lepta-agent wipe --data {settings.folder}"
    raise CliError(
        DATA,
        f"{settings.folder} holds the identity of {known.agent}, which was made on another machine (hardware "
        f"{known.hardware}, here it is {here}). If the folder was copied: {wipe}, then join with a new claim. If the "
        "board was replaced, do the same, after `lepta device rm` on the controller",
    )


def _invitation(settings: AgentSettings) -> Invitation:
    from agent.join import Invitation

    begun = enroll.begun(settings.folder)
    if not settings.controller and begun is not None:
        raise CliError(USAGE, f"joining {begun.controller} was interrupted: run the same `lepta-agent join` line again")
    if not settings.controller:
        raise CliError(USAGE, "the first start needs --controller URL and --token-file FILE, or `lepta-agent join`")
    if not settings.token_file:
        raise CliError(USAGE, "the first start needs a claim token: --token-file FILE (`lepta device add` makes one)")
    token = token_in(settings.token_file)
    return Invitation(settings.controller, token, settings.ca_fingerprint, settings.name, settings.insecure)


def _log_somewhere(settings: AgentSettings) -> None:
    handlers = None
    if settings.log_file:
        from agent.service.logfile import handler  # Only where nobody collects standard error.

        handlers = [handler(Path(settings.log_file).expanduser(), settings.limits.log_mb)]
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", handlers=handlers)
    logging.getLogger("lepta").setLevel(settings.log_level.upper())
