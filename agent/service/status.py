"""`lepta-agent status`. Exit status: 0 runs and is connected, 1 runs without its controller, 3 does not run."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from agent.contract.messages import ModelState
from agent.enroll import Identity
from agent.service.install import places_of
from agent.service.look import Seen, look
from agent.service.manager import Manager, Systemd
from agent.service.places import Places

CONNECTED, ALONE, STOPPED = 0, 1, 3
_DAY_S = 86_400


def run(options: argparse.Namespace) -> int:
    """`lepta-agent status`."""
    where = places_of(options)
    seen = look(where.data)
    for name, value in [*lines(seen, where.data, time.time()), ("service", _service(where, Systemd(user=where.user)))]:
        print(f"{name:<13}{value}")
    return verdict(seen)


def verdict(seen: Seen) -> int:
    if seen.pid is None:
        return STOPPED
    return CONNECTED if seen.shown is not None and seen.shown.connected else ALONE


def lines(seen: Seen, data: Path, now: float) -> list[tuple[str, str]]:
    """PURE: name and value of each line."""
    found = [("agent", _who(seen.identity)), ("data", str(data)), ("process", _process(seen, now))]
    if seen.identity is not None:
        found.insert(1, ("controller", seen.identity.controller or "-"))
        if seen.identity.not_after:
            found.insert(2, ("certificate", expiry(seen.identity.not_after, now)))
    if seen.shown is not None:
        state = "yes" if seen.shown.connected else "no"
        found.append(("connected", f"{state}, since {_ago(now - seen.shown.changed)}"))
        found += [("model", _model(state)) for state in seen.shown.models] or [("models", "none")]
    return found


def expiry(not_after: float, now: float) -> str:
    """PURE. When a certificate ends."""
    day = time.strftime("%Y-%m-%d", time.gmtime(not_after))
    left = not_after - now
    return f"valid until {day} ({left / _DAY_S:.0f} days)" if left > 0 else f"expired on {day}"


def _who(identity: Identity | None) -> str:
    if identity is None:
        return "has joined no controller yet (`lepta device add` there shows the line)"
    waits = (
        f", waits for approval (there: lepta device approve {identity.agent})" if identity.state == "pending" else ""
    )
    return f"{identity.agent}{waits}"


def _process(seen: Seen, now: float) -> str:
    if seen.pid is None:
        return "does not run"
    since = f", since {_ago(now - seen.shown.since)}" if seen.shown is not None else ", starting"
    return f"runs (pid {seen.pid or '?'}{since})"


def _model(state: ModelState) -> str:
    runtime = f" on {state.runtime}" if state.runtime else ""
    return f"{state.model} {state.version} {state.state}{runtime}{': ' + state.reason if state.reason else ''}"


def _ago(seconds: float) -> str:
    for unit, size in (("d", _DAY_S), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _service(where: Places, manager: Manager) -> str:
    if not where.unit.is_file():
        return "not installed (lepta-agent install)"
    if not manager.runs():
        return f"installed ({where.unit}), but no systemd runs here"
    state = manager.state()
    return f"{state.active}, {state.enabled}"
