"""`lepta-agent doctor`: everything that can be wrong, in the order in which it would show. Prints no secret."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from agent import enroll
from agent.cli import OK, CliError
from agent.clock import Clock
from agent.enroll import Identity
from agent.preparing import facts_of, settings_from
from agent.service import files, network
from agent.service.check import Check, failed, ok, warning
from agent.service.install import places_of
from agent.service.look import Seen, config_of, look
from agent.service.manager import Manager, Systemd
from agent.service.places import Places
from agent.service.status import expiry
from agent.settings import AgentSettings

BAD = 1
_LEAST_DISK_MB, _LEAST_MEMORY_MB = 64, 64
_SECRETS = (enroll.KEY, enroll.IDENTITY, enroll.CERTIFICATE)


def run(options: argparse.Namespace) -> int:
    """`lepta-agent doctor`. Exit status 1 if something failed."""
    where = places_of(options)
    settings = settings_from(config_of(options, where))
    found = []
    for check in checks(where, settings, Systemd(user=where.user)):
        found.append(check)
        print(f"{check.verdict:<8} {check.what}: {check.found}", flush=True)
        if check.cure:
            print(f"{'':<8} -> {check.cure}", flush=True)
    files.hand_over(where.data)
    bad = sum(check.verdict == "failed" for check in found)
    print(f"{len(found)} checks, {bad} failed")
    return BAD if bad else OK


def checks(where: Places, settings: AgentSettings, manager: Manager) -> Iterator[Check]:
    """One after the other, since the later ones may take seconds."""
    data = where.data
    yield from _program(settings, data)
    yield from _folder(data)
    yield _memory()
    yield _service(where, manager)
    try:
        seen = look(data)
    except CliError as error:
        yield failed("identity", str(error), "run this with sudo; or restore the file; or wipe and join again")
        return
    if seen.identity is None:
        yield failed("identity", "there is none", "`lepta device add` on the controller shows the line to paste here")
        return
    yield from _identity(seen.identity, data)
    yield from _reach(seen, seen.identity, settings)


def _program(settings: AgentSettings, data: Path) -> Iterator[Check]:
    yield ok("python", f"{sys.version.split()[0]} in {sys.prefix}")
    try:
        here = facts_of(settings)
    except CliError as error:
        yield failed("facts", str(error), "mend the table [facts] in agent.toml")
        return
    if here.runtimes:
        yield ok("runtime", ", ".join(here.runtimes))
    else:
        yield failed("runtime", f"none for {here.machine}", "install `lepta[tflite-runtime]`, or a 64-bit system")


def _folder(data: Path) -> Iterator[Check]:
    try:
        mode, free = data.stat().st_mode & 0o777, shutil.disk_usage(data).free >> 20
        there = {name: (data / name).stat().st_mode & 0o777 for name in _SECRETS if (data / name).exists()}
    except FileNotFoundError:
        yield warning("data folder", f"{data} is not there yet", "it is made by `lepta-agent join` or `run`")
        return
    except OSError as error:
        yield failed("data folder", f"{data}: {error.strerror}", "run this with sudo")
        return
    if mode & 0o077:
        yield failed("data folder", f"others may look into {data} ({mode:o})", f"chmod 700 {data}")
    else:
        yield ok("data folder", f"{data}, {mode:o}")
    open_ = [name for name, mode in there.items() if mode & 0o077]
    if open_:
        cure = f"chmod 600 {' '.join(str(data / name) for name in open_)}"
        yield failed("secret files", f"others may read {', '.join(open_)}", cure)
    elif there:
        yield ok("secret files", f"{', '.join(there)}: for their owner alone")
    if not os.access(data, os.W_OK):
        yield failed("disk", f"{data} takes no writes", "a full or worn-out card is often mounted read-only: see dmesg")
    elif free < _LEAST_DISK_MB:
        yield failed("disk", f"{free} MB are free", f"models need room: free at least {_LEAST_DISK_MB} MB")
    else:
        yield ok("disk", f"{free} MB are free")


def _memory() -> Check:
    import psutil

    free = psutil.virtual_memory().available >> 20
    if free < _LEAST_MEMORY_MB:
        return warning("memory", f"{free} MB are available", "a swap holds two versions of a model for a moment")
    return ok("memory", f"{free} MB are available")


def _service(where: Places, manager: Manager) -> Check:
    if not where.unit.is_file():
        return warning("service", "not installed", "lepta-agent install, so that it starts with the machine")
    if not manager.runs():
        return warning("service", "installed, but no systemd runs here", "")
    state = manager.state()
    found = f"{state.active}, {state.enabled}"
    if state.active == "active" and state.enabled == "enabled":
        return ok("service", found)
    return failed("service", found, "lepta-agent logs; then lepta-agent install")


def _identity(identity: Identity, data: Path) -> Iterator[Check]:
    if identity.state == "pending":
        yield failed("identity", f"{identity.agent} waits", f"on the controller: lepta device approve {identity.agent}")
    else:
        yield ok("identity", f"{identity.agent} of {identity.controller or 'a controller'}")
    clock = Clock(data)
    if clock.wrong:
        shown = time.strftime("%Y-%m-%d", time.gmtime())
        cure = "set it, or let NTP set it; until then TLS checks no dates"
        yield warning("clock", f"{shown} has passed long ago", cure)
    else:
        yield ok("clock", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()))
    if identity.not_after:
        ends = expiry(identity.not_after, clock.now())
        cure = "it is renewed while the agent runs and reaches its controller; if it does not: wipe, and join again"
        yield ok("certificate", ends) if identity.not_after > clock.now() else failed("certificate", ends, cure)


def _reach(seen: Seen, identity: Identity, settings: AgentSettings) -> Iterator[Check]:
    """The controller and the broker: name, port, TLS; and whether the broker takes us."""
    good = True
    for check in network.checks(identity, settings):
        good = good and check.verdict != "failed"
        yield check
    if seen.pid is not None:
        if seen.shown is not None and seen.shown.connected:
            yield ok("login", f"the running agent (pid {seen.pid}) is connected")
        else:
            yield failed("login", f"the running agent (pid {seen.pid}) is not connected", "lepta-agent logs")
    elif good and identity.state == "approved":
        yield _login(identity, settings, network.login)


def _login(identity: Identity, settings: AgentSettings, login: Callable[[Identity, AgentSettings], str]) -> Check:
    """Only while no agent runs: the broker knows us by one name, and a second connection would end the first."""
    problem = login(identity, settings)
    if not problem:
        return ok("login", f"the broker takes {identity.agent}")
    cure = f"on the controller: lepta device show {identity.agent}. If it was revoked or removed: wipe, and join again"
    return failed("login", problem, cure)
