"""What this device holds against a version that is offered: whose signature counts, what it is, what it refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec

from agent.check import Device
from agent.clock import Clock
from agent.contract.messages import Desired
from agent.contract.root import RootError
from agent.disk import Disk, RealDisk
from agent.enroll import Identity
from agent.facts import runtime_versions
from agent.fetching import packings_of
from agent.keeper import Keeper
from agent.roots import Roots
from agent.settings import AgentSettings
from firmware_profiles.profile import Facts, builtin, match


class Standing:
    """Shared by the slots of one agent."""

    def __init__(
        self,
        identity: Identity,
        facts: Facts,
        keeper: Keeper,
        settings: AgentSettings,
        clock: Clock | None = None,
        disk: Disk | None = None,
    ) -> None:
        self.roots = Roots(settings.folder, disk or RealDisk(), identity.release_key, identity.root)
        self.packings = packings_of(settings, identity)
        self.refusals: Counter[str] = Counter()
        """Versions refused since the start, by cause."""
        self._name = identity.agent
        self._facts = facts
        self._keeper = keeper
        self._limits = settings.limits
        self._clock = clock or Clock(settings.folder)
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
        """Take the root documents that came with it; True if other keys count now. Raises OSError if the disk does not
        take them: the keys of before count then, and what else came with them is better asked for again."""
        if desired.agent == self._name:
            self._note_mirrors(desired)
        try:
            return desired.agent == self._name and self.roots.offer(desired.roots)
        except RootError as error:
            refuse(f"a root document: {error}")
            return False

    def _note_mirrors(self, desired: Desired) -> None:
        """They may change without anything else: nobody trusts them, so that needs no generation of its own."""
        now = self._keeper.current
        if desired.generation == now.generation and desired.mirrors != now.mirrors:
            self._keeper.save(lambda pointers: msgspec.structs.replace(pointers, mirrors=desired.mirrors), _no_matter)


def _no_matter(_: Exception | None) -> None:
    """If that is not on disk, the broker goes on sending everything."""


def misfits(facts: Facts) -> dict[str, str]:
    """Why this device does not fit a profile, for each that this program knows and it does not fit."""
    fits = {name: match(profile, facts) for name, profile in builtin().items()}
    return {
        name: "; ".join(reason for reason in fit.reasons if reason.startswith("no:"))
        for name, fit in fits.items()
        if not fit.fits
    }
