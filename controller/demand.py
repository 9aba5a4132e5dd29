"""PURE: what to do about a request for a model that no device can answer: wait for what is under way, place, optimize.

Decided anew after every step from what is there, so a restart in between costs nothing. What failed once is not begun
again by a request: who rolls out or runs by hand is free to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from controller.policy import OnDemand

# States in which a device has given a version up.
_GIVEN_UP = frozenset({"refused", "failed"})


@dataclass(frozen=True)
class Situation:
    """One version of a model, and the devices that are online and not draining."""

    model: str
    version: int
    policy: OnDemand
    ready: bool
    """A device answers for it."""
    why_not: str
    """In words, device by device, when none does."""
    withdrawn: bool = False
    """Somebody took the model off all devices."""
    rollout: str | None = None
    """Of the model, under way."""
    last_rollout: tuple[str, str] | None = None
    """The newest of this version that ended: its id and how."""
    run: str | None = None
    """Of this version, under way."""
    fits: Mapping[str, str | None] = field(default_factory=dict)
    """Per device the profile whose artifact it would get, among those that are built and signed."""
    calls_for: Mapping[str, str | None] = field(default_factory=dict)
    """Per device the profile that suits it best, built or not."""
    told: Mapping[str, str] = field(default_factory=dict)
    """Devices that are to run it already, and what they say of it; empty before they said anything."""
    built: frozenset[str] = frozenset()
    unsigned: frozenset[str] = frozenset()
    """Built, and waiting for the release key's signature."""
    tried: Mapping[str, str] = field(default_factory=dict)
    """Profiles that an ended run was asked for and did not build, and that run."""
    with_data: bool = False
    """It was uploaded with data, and runs no code when it is loaded."""


@dataclass(frozen=True)
class Ready:
    pass


@dataclass(frozen=True)
class Wait:
    """`kind` and `id` name what is waited for; an installation has no id."""

    kind: Literal["rollout", "run", "installation"]
    id: str = ""


@dataclass(frozen=True)
class Place:
    pass


@dataclass(frozen=True)
class Optimize:
    profiles: tuple[str, ...]


@dataclass(frozen=True)
class Refuse:
    reason: str
    hint: str


Decision = Ready | Wait | Place | Optimize | Refuse


def decide(s: Situation) -> Decision:
    """The next step towards a device that answers."""
    if s.ready:
        return Ready()
    if s.policy == "off":
        return Refuse(
            f"no device can answer for {s.model}: {s.why_not}",
            f"lepta rollout start {s.model}; its policy, on_demand off, lets no request begin anything",
        )
    if s.rollout is not None:
        return Wait("rollout", s.rollout)
    if s.withdrawn:
        return Refuse(f"{s.model} was unloaded from all devices", f"lepta rollout start {s.model}")
    if s.run is not None:
        return Wait("run", s.run)
    if any(state not in _GIVEN_UP for state in s.told.values()):
        return Wait("installation")
    if not s.calls_for:
        return Refuse(f"no device can answer for {s.model}: {s.why_not}", "lepta device ls")
    if s.last_rollout is not None and s.last_rollout[1] != "done":
        rollout, ended = s.last_rollout
        return Refuse(
            f"{_named(s)} is on no device: its rollout {rollout} {_ended(ended)}",
            f"lepta rollout show {rollout}; a request does not begin another one",
        )
    if any(profile is not None and device not in s.told for device, profile in s.fits.items()):
        return Place()
    return _unbuilt(s)


def _unbuilt(s: Situation) -> Decision:
    """No device that is here gets what there is."""
    wanted = {profile for profile in s.calls_for.values() if profile is not None}
    if wanted & s.unsigned:
        waiting = ", ".join(sorted(wanted & s.unsigned))
        return Refuse(f"{_named(s)} for {waiting} waits for the release key's signature", "lepta release pending")
    missing = sorted(wanted - s.built)
    if not missing:
        return Refuse(f"no device can answer for {s.model}: {s.why_not}", f"lepta model show {s.model}")
    lacks = f"{_named(s)} was not built for {', '.join(missing)}"
    left = tuple(profile for profile in missing if profile not in s.tried)
    if not left:
        runs = ", ".join(sorted({s.tried[profile] for profile in missing}))
        return Refuse(f"{lacks}: {runs} did not bring it about", f"lepta run show {runs.split(', ')[0]}")
    if s.policy != "optimize":
        return Refuse(
            lacks, f"lepta deploy, or let requests begin it: lepta model policy {s.model} --on-demand optimize"
        )
    if not s.with_data:
        return Refuse(f"{lacks}, and a run needs the data that it came without", "lepta deploy MODEL --data DATA")
    return Optimize(left)


def _named(s: Situation) -> str:
    return f"{s.model} version {s.version}"


def _ended(state: str) -> str:
    return f"was {state}" if state in ("aborted", "withdrawn") else "failed"
