"""The certificate is renewed after two thirds of its life, by a child process: HTTP and X.509 stay out of the agent."""

from __future__ import annotations

import argparse
import logging
import random
import subprocess
from collections.abc import Callable

from agent import enroll
from agent.backoff import Backoff
from agent.cli import OK, REFUSED, UNREACHABLE, USAGE, CliError
from agent.clock import Clock
from agent.contract import children
from agent.enroll import Identity
from agent.loop import Loop, Timer
from agent.settings import AgentSettings

_log = logging.getLogger("lepta.agent.renewal")
REVOKED = 6
"""Exit status of the child: the controller does not take this device any more."""


def due(not_before: float, not_after: float, now: float) -> bool:
    """PURE. Two thirds of its life are over; what has no end is never due."""
    return not_after > 0 and now >= due_at(not_before, not_after)


def due_at(not_before: float, not_after: float) -> float:
    return not_before + (not_after - not_before) * 2 / 3


class Renewal:
    """Looks at the clock at least every `limits.renew_most` seconds; a fleet that joined together spreads over them."""

    def __init__(
        self,
        loop: Loop,
        settings: AgentSettings,
        identity: Identity,
        clock: Clock,
        random_: Callable[[], float] = random.random,
    ) -> None:
        self._loop = loop
        self._folder = settings.folder
        self._limits = settings.limits
        self._life = (identity.not_before, identity.not_after)
        self._clock = clock
        self._random = random_
        self._failed = Backoff(loop, settings.limits.renew_first, settings.limits.renew_most)
        self._timer: Timer | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._refused = False
        self._stopping = False
        self._plan()

    def stop(self) -> None:
        """End what runs, and remember the time."""
        self._stopping = True
        self._failed.cancel()
        if self._timer is not None:
            self._timer.cancel()
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        self._clock.save()

    def _plan(self) -> None:
        ahead = max(0.0, due_at(*self._life) - self._clock.now())
        wait = min(ahead, self._limits.renew_most * (0.5 + 0.5 * self._random()))
        self._timer = self._loop.call_later(wait, self._look)

    def _look(self) -> None:
        # On a thread: the clock's file is written with fsync, which a slow card makes long.
        self._loop.in_thread(self._clock.note, lambda _: self._noted())

    def _noted(self) -> None:
        if self._stopping:
            return
        if due(*self._life, self._clock.now()):
            self._renew()
        else:
            self._plan()

    def _renew(self) -> None:
        if self._stopping:
            return
        command = [*children.command("agent.cli"), "renew", "--data", str(self._folder)]
        try:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=children.environment()
            )
        except OSError as error:
            self._again(str(error))
            return
        self._child = child
        self._loop.in_thread(lambda: child.communicate()[1], lambda told: self._ended(child, told))

    def _ended(self, child: subprocess.Popen[bytes], told: bytes | Exception) -> None:
        self._child = None
        if self._stopping:
            return
        words = told.decode(errors="replace").strip() if isinstance(told, bytes) else str(told)
        if child.returncode == OK:
            self._renewed()
        elif child.returncode == REVOKED:
            if not self._refused:
                _log.error("%s; what is loaded keeps serving until the certificate ends", words)
            self._refused = True
            self._failed.later(self._renew)
        else:
            self._again(words or f"exit status {child.returncode}")

    def _renewed(self) -> None:
        try:
            identity = enroll.stored(self._folder)
        except enroll.EnrollError as error:
            self._again(str(error))
            return
        if identity is None:
            self._again("the identity is gone")
            return
        self._refused = False
        self._life = (identity.not_before, identity.not_after)
        self._clock.certified(*self._life)
        _log.info("the certificate was renewed")
        if due(*self._life, self._clock.now()):
            self._failed.later(self._renew)  # A life shorter than the margin before it: not in a circle without rest.
        else:
            self._failed.reset()
            self._plan()

    def _again(self, why: str) -> None:
        _log.warning("the certificate was not renewed: %s", why)
        self._failed.later(self._renew)


def run(options: argparse.Namespace) -> int:
    """`lepta-agent renew`: ask for a new certificate once. The agent runs it; a person may, too."""
    from agent import join
    from agent.preparing import settings_from

    settings = settings_from(options)
    try:
        identity = enroll.stored(settings.folder)
        if identity is None or identity.state != "approved":
            raise CliError(USAGE, f"{settings.folder} holds no identity; join first")
        join.ask_again(settings.folder, identity, settings.limits.http, Clock(settings.folder))
    except enroll.Unreachable as error:
        raise CliError(UNREACHABLE, str(error)) from error
    except enroll.Revoked as error:
        raise CliError(REVOKED, str(error)) from error
    except enroll.EnrollError as error:
        raise CliError(REFUSED, str(error)) from error
    return OK
