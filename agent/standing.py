"""What this device holds against a version that is offered: whose signature counts, what it is, what it refused."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from agent.check import Device
from agent.clock import Clock
from agent.contract.messages import Desired
from agent.contract.root import RootError
from agent.disk import RealDisk
from agent.enroll import Identity
from agent.facts import runtime_versions
from agent.keeper import Keeper
from agent.roots import Roots
from agent.settings import AgentSettings
from firmware_profiles.profile import Facts, builtin, match

_log = logging.getLogger("lepta.agent.standing")


class Standing:
    """Shared by the slots of one agent."""

    def __init__(self, identity: Identity, facts: Facts, keeper: Keeper, settings: AgentSettings, clock: Clock) -> None:
        self.roots = Roots(settings.folder, RealDisk(), identity.release_key, identity.root)
        self.refusals: Counter[str] = Counter()
        """Versions refused since the start, by cause."""
        self._name = identity.agent
        self._facts = facts
        self._keeper = keeper
        self._limits = settings.limits
        self._clock = clock
        self._runtimes = runtime_versions(facts.runtimes)
        self._misfits = misfits(facts)

    def device(self) -> Device:
        """This device as a manifest sees it now."""
        return Device(
            name=self._name,
            # The operator decides which group a device is in, above what it says itself.
            labels={**self._facts.labels, **self._keeper.current.labels},
            runtimes=self._runtimes,
            misfits=self._misfits,
            limits=self._limits,
            has_passed=self._clock.has_passed,
        )

    def follow(self, desired: Desired, refuse: Callable[[str], None]) -> bool:
        """Take the root documents that came with it; True if other keys count now."""
        try:
            return desired.agent == self._name and self.roots.offer(desired.roots)
        except RootError as error:
            refuse(f"a root document: {error}")
            return False
        except OSError as error:
            _log.error("the root document cannot be saved: %s; the keys of before count", error)
            return False


def misfits(facts: Facts) -> dict[str, str]:
    """Why this device does not fit a profile, for each that this program knows and it does not fit."""
    fits = {name: match(profile, facts) for name, profile in builtin().items()}
    return {
        name: "; ".join(reason for reason in fit.reasons if reason.startswith("no:"))
        for name, fit in fits.items()
        if not fit.fits
    }
