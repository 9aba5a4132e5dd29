"""PURE: which artifact of a version a device gets, with the reasons kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from firmware_profiles.profile import Facts, Profile, choose, match


@dataclass(frozen=True)
class Placement:
    """One device's share of a release: the profile whose artifact it gets, or none and why."""

    device: str
    profile: str | None
    reasons: tuple[str, ...]


def place(devices: Mapping[str, Facts], profiles: Mapping[str, Profile], built: Iterable[str]) -> list[Placement]:
    """For each device, by name, choose among the profiles for which an artifact was built."""
    available = {name: profiles[name] for name in built if name in profiles}
    return [_place_one(device, facts, profiles, available) for device, facts in sorted(devices.items())]


def needed_profiles(devices: Mapping[str, Facts], profiles: Mapping[str, Profile]) -> list[str]:
    """The profiles that the devices of a fleet call for: what a run builds when nobody names profiles."""
    chosen = (choose(profiles.values(), facts) for facts in devices.values())
    return sorted({profile.name for profile in chosen if profile is not None})


def _place_one(
    device: str, facts: Facts, profiles: Mapping[str, Profile], available: Mapping[str, Profile]
) -> Placement:
    best = choose(available.values(), facts)
    if best is not None:
        return Placement(device, best.name, match(best, facts).reasons)
    wanted = choose(profiles.values(), facts)
    if wanted is not None:
        built = ", ".join(sorted(available)) or "nothing"
        return Placement(device, None, (f"it fits {wanted.name}, but the version was built for {built}",))
    failures = tuple(
        f"{profile.name}: {reason}" for profile in profiles.values() for reason in match(profile, facts).reasons
    )
    return Placement(device, None, ("it fits no profile", *failures))
