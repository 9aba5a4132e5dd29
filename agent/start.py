"""Puts one agent together from its configuration and runs it until a signal."""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import secrets
import signal
from collections.abc import Callable
from pathlib import Path
from typing import IO

import msgspec

from agent import enroll, facts
from agent.blobs import Blobs
from agent.cli import DATA, OK, REFUSED, UNREACHABLE, USAGE, CliError
from agent.disk import RealDisk
from agent.keeper import Keeper
from agent.link import Link
from agent.loop import Loop
from agent.memory import share_one_heap, trim
from agent.pointers import PointerError, PointerFile
from agent.settings import AgentSettings, SettingsError, read
from agent.supervisor import Supervisor
from agent.workers import ZygoteWorkers
from firmware_profiles.profile import Facts, builtin, match

_log = logging.getLogger("lepta.agent")
_MOST_BUGS = 20


def run(options: argparse.Namespace) -> int:
    """`lepta-agent run`: enroll if needed, then serve until SIGTERM or SIGINT. Returns the exit status."""
    settings = settings_from(options)
    _log_to_stderr(settings.log_level)
    share_one_heap()
    with _own_folder(settings.folder):
        here = facts_of(settings)
        loop = Loop()
        workers = ZygoteWorkers(loop, here.runtimes)
        if not here.runtimes:
            _log.error("no interpreter is installed; this device can be seen but serves nothing")
        identity = _identity(settings, here)
        workers.warm()
        try:
            supervisor = assemble(loop, workers, settings, identity, here)
        except PointerError as error:
            workers.close()
            raise CliError(DATA, str(error)) from error
        _log.info("agent %s, data in %s", identity.agent, settings.folder)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: loop.call_soon(supervisor.stop))
        supervisor.start()
        trim()
        status = _turn(loop, lambda: supervisor.stopped)
        loop.close()
    return status


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
    loop: Loop, workers: ZygoteWorkers, settings: AgentSettings, identity: enroll.Identity, here: Facts
) -> Supervisor:
    """One supervisor with everything real but what is given."""
    disk = RealDisk()
    return Supervisor(
        loop=loop,
        link=Link(loop, identity.broker, identity.agent, settings.limits),
        workers=workers,
        blobs=Blobs(settings.folder, disk, settings.limits.disk_mb << 20),
        keeper=Keeper(loop, PointerFile(settings.folder, disk)),
        identity=identity,
        settings=settings,
        facts=here,
        new_id=lambda: secrets.token_hex(8),
    )


def show_facts(options: argparse.Namespace) -> int:
    """`lepta-agent facts`."""
    settings = settings_from(options)
    here = facts_of(settings)
    print("Facts")
    for name, value in msgspec.to_builtins(here).items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        print(f"  {name:<14}{shown if shown not in ('', {}) else '-'}{'  (set)' if name in here.overridden else ''}")
    for profile in builtin().values():
        fit = match(profile, here)
        print(f"\nProfile {profile.name}: {'fits' if fit.fits else 'does not fit'}")
        for reason in fit.reasons:
            print(f"  {reason}")
    return OK


def settings_from(options: argparse.Namespace) -> AgentSettings:
    """The configuration file, with what the command line says on top."""
    try:
        settings = read(options.config) if options.config else AgentSettings()
    except SettingsError as error:
        raise CliError(USAGE, str(error)) from error
    told = {name: getattr(options, name, None) for name in ("controller", "name", "data", "token_file", "runtime")}
    changes = {name: str(value) for name, value in told.items() if value}
    return msgspec.structs.replace(settings, **changes)


def facts_of(settings: AgentSettings) -> Facts:
    try:
        return facts.gather(settings.folder, runtime=settings.runtime, overrides=settings.facts, labels=settings.labels)
    except facts.FactsError as error:
        raise CliError(USAGE, str(error)) from error


def _identity(settings: AgentSettings, here: Facts) -> enroll.Identity:
    """The stored one; an enrolled agent starts without its controller."""
    try:
        known = enroll.stored(settings.folder)
        if known is not None:
            return known
        if not settings.controller:
            raise CliError(USAGE, "the first start needs --controller URL and --token-file FILE")
        token = _token(settings)
        return enroll.enroll(settings.folder, settings.controller, token, settings.name, here, settings.limits.http)
    except enroll.Unreachable as error:
        raise CliError(UNREACHABLE, str(error)) from error
    except enroll.EnrollError as error:
        raise CliError(REFUSED, str(error)) from error


def _token(settings: AgentSettings) -> str:
    if not settings.token_file:
        raise CliError(USAGE, "the first start needs a claim token: --token-file FILE (`lepta device add` makes one)")
    try:
        return Path(settings.token_file).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(USAGE, f"the token file {settings.token_file} cannot be read: {error}") from error


def _own_folder(folder: Path) -> IO[str]:
    """Make the data folder ours alone; the lock goes with the process."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = open(folder / "agent.lock", "w", encoding="ascii")  # noqa: SIM115 - held as long as we live
    except OSError as error:
        raise CliError(DATA, f"the data folder {folder} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        message = f"another agent runs with the data folder {folder}; give this one its own --data"
        raise CliError(DATA, message) from error
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("lepta").setLevel(level.upper())
