"""What a running agent shows of itself: `status.json` for people's commands, and word to the service manager."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from agent.contract.messages import ModelState
from agent.loop import Loop, Timer
from agent.service import watchdog
from agent.service.notify import Notifier
from agent.serving import Serving
from agent.settings import Limits

FILE = "status.json"
_WRITE_EVERY_S = 2.0
_LOOK_S = 0.1


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `status.json`."""

    pid: int
    since: float
    """When the agent started, in seconds since 1970 by its own clock."""
    connected: bool
    changed: float
    """When `connected` last changed."""
    models: tuple[ModelState, ...] = ()


class Agent(Protocol):
    """What is looked at: a supervisor."""

    on_change: Callable[[], None]

    def start(self) -> None: ...

    def stop(self) -> None: ...

    @property
    def connected(self) -> bool: ...

    @property
    def servings(self) -> Mapping[str, Serving]: ...

    def states(self) -> tuple[ModelState, ...]: ...


class Presence:
    """Call `changed` when something may have changed; it costs nothing where nothing did. Flash wears, so the file is
    written only on a change, at most every 2 s, and never flushed: after a crash nobody needs it.
    """

    def __init__(self, loop: Loop, folder: Path, agent: Agent, notifier: Notifier, limits: Limits) -> None:
        self._loop = loop
        self._folder = folder
        self._agent = agent
        self._notifier = notifier
        self._patience = limits.start + limits.compute + limits.restart_most
        self._ready_by = loop.now() + limits.start
        self._watch = watchdog.Watch()
        self._timer: Timer | None = None
        self._next_write = 0.0
        now = time.time()
        self._shown = Shown(pid=os.getpid(), since=now, connected=False, changed=now)
        self._written = b""

    def start(self) -> None:
        """Start the agent, and show it from now on."""
        self._agent.on_change = self.changed
        self._agent.start()
        self._write()
        self._announce()
        if self._notifier.watchdog_s:
            self._beat()

    def changed(self) -> None:
        """Something changed, perhaps."""
        if self._timer is None:
            wait = max(_LOOK_S, self._next_write - self._loop.now())
            self._timer = self._loop.call_later(wait, self._write)

    def stop(self) -> None:
        """Ask the agent to stop."""
        self._notifier.stopping()
        self._agent.stop()

    def close(self) -> None:
        """The agent has ended."""
        (self._folder / FILE).unlink(missing_ok=True)
        self._notifier.close()

    # -- the file

    def _write(self) -> None:
        self._timer = None
        before, connected = self._shown, self._agent.connected
        since = before.changed if before.connected == connected else time.time()
        shown = msgspec.structs.replace(before, connected=connected, changed=since, models=self._agent.states())
        content = msgspec.json.encode(shown)
        if content == self._written:
            return
        self._shown, self._written = shown, content
        self._next_write = self._loop.now() + _WRITE_EVERY_S
        self._notifier.status(in_words(shown))
        with contextlib.suppress(OSError):  # A full or read-only disk: `status` says less, nothing else suffers.
            replace_file(self._folder / FILE, content)

    # -- the manager

    def _announce(self) -> None:
        """Ready when every stored model serves or was given up."""
        waiting = [serving for serving in self._agent.servings.values() if serving.member and not serving.live]
        if waiting and self._loop.now() < self._ready_by:
            self._loop.call_later(_LOOK_S, self._announce)
        else:
            self._notifier.ready()

    def _beat(self) -> None:
        self._loop.call_later(self._notifier.watchdog_s / 3, self._beat)
        sound = os.access(self._folder, os.W_OK)
        verdict = watchdog.beat(self._watch, self._models(), sound, self._loop.now(), self._patience)
        self._obey(verdict)

    def _heard(self) -> None:
        self._obey(watchdog.answered(self._watch, self._models()))

    def _obey(self, verdict: watchdog.Verdict) -> None:
        self._watch = verdict.watch
        if verdict.alive:
            self._notifier.alive()
        servings = self._agent.servings
        for name in verdict.ask:
            servings[name].prod(self._heard)

    def _models(self) -> dict[str, watchdog.Model]:
        wanted = {name: serving for name, serving in self._agent.servings.items() if serving.member is not None}
        return {name: watchdog.Model(serving.live, serving.answers) for name, serving in wanted.items()}


def in_words(shown: Shown) -> str:
    models = ", ".join(f"{state.model} {state.version} {state.state}" for state in shown.models) or "no models"
    return f"{'connected' if shown.connected else 'not connected'}; {models}"


def replace_file(path: Path, content: bytes) -> None:
    """In one step for whoever reads it, mode 0600, not flushed."""
    fresh = path.with_name(f"{path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)
    fresh.replace(path)
