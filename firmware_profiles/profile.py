"""Facts about a device, profiles of device classes, and which fits which."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from firmware_profiles.allowed import describe, unknown_key
from firmware_profiles.operators import BUILTIN_OPERATORS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class ProfileError(ValueError):
    """A profile that cannot be used; the message names the file, the key, and what is allowed there."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a device is. Measured by the agent; an override from its configuration wins and is named in `overridden`."""

    machine: str
    """Architecture as the kernel names it: x86_64, aarch64, armv7l."""
    system: str = "linux"
    board: str = ""
    """The device tree's model line, such as "Raspberry Pi 4 Model B Rev 1.4"; empty where there is none."""
    cpus: int = 1
    """Logical processors that the agent may use."""
    memory_mb: int = 0
    disk_mb: int = 0
    """Free space where the agent keeps its data."""
    accelerators: tuple[str, ...] = ()
    """What the host fronts: "fpga", "gpu", "ethos-u55"."""
    runtimes: tuple[str, ...] = ()
    """Installed interpreters, best first: "ai-edge-litert", "tflite-runtime"."""
    python: str = ""
    labels: dict[str, str] = {}
    overridden: tuple[str, ...] = ()
    """Names of the facts that the configuration set; an accelerator named here is simulated unless a driver answers."""


Runtime = Literal["ai-edge-litert", "tflite-runtime"]
Interface = Literal["int8", "uint8", "int16", "float32"]
Name = Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9._-]{0,62}$")]
Operator = Annotated[str, Meta(pattern="^[A-Z][A-Z0-9_]*$")]
Amount = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]


class Fits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which devices the profile is for. A condition that is left out, or empty, holds for every device."""

    machines: tuple[str, ...] = ()
    systems: tuple[str, ...] = ()
    accelerators: tuple[str, ...] = ()
    """The device fronts at least one of these."""
    boards: tuple[str, ...] = ()
    """The board's name contains one of these."""
    min_memory_mb: Annotated[int, Meta(ge=0)] = 0
    runtimes: tuple[Runtime, ...] = ()
    """The device has one of these installed; left out: one of `runtime.runtimes`."""


class Numerics(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The arithmetic of the artifact: full-integer int8 inside, unless a recipe asks for another scheme."""

    weights: Literal["per-channel", "per-tensor", "power-of-two"] = "per-channel"
    """How int8 scales are shared; "power-of-two": one scale 2^n per tensor, symmetric, so that hardware shifts."""
    dense: Literal["per-channel", "per-tensor"] = "per-channel"
    """Fully connected layers alone: one scale per tensor needs less memory on microcontrollers, and packs better."""
    mixed: bool = False
    """Whether operators may stay float: those that err most where int8 misses the gate, and those without an integer
    form. False for hardware that has no float."""
    input: Interface = "int8"
    output: Interface = "int8"
    """What tensors hold outside; "int16" goes with the scheme int16x8."""


class Budgets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an artifact may take on the device; 0 means no limit."""

    file_kb: Amount = 0
    memory_mb: Amount = 0
    latency_ms: Amount = 0
    """Median of one row."""


class Gate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an artifact must prove before it may be released.

    Accuracy is counted against the source, whatever was pruned on the way; parity against the float model that was
    converted. A pruned model without labels must agree with the source as well.
    """

    accuracy_loss: Share = 0.01
    """Margin: how much accuracy the artifact may lose against the float model, as a share of rows."""
    agreement: Share = 0.97
    """Least share of parity rows whose top-1 class equals the float model's."""
    sqnr_db: float = 15.0
    """Least signal-to-quantization-noise ratio over all outputs of the parity set, in dB."""
    strict: bool = False
    """True: the one-sided 95 % bound of the loss must stay within the margin, not only its point estimate."""


class RuntimeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    threads: Annotated[int, Meta(ge=1, le=64)] = 1
    runtimes: Annotated[tuple[Runtime, ...], Meta(min_length=1)] = ("ai-edge-litert", "tflite-runtime")
    """Interpreters in order of preference."""


class Fetch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """By which way blobs come to such devices, unless a device's own configuration says otherwise."""

    way: Literal["mqtt", "http"] = "mqtt"
    """What is tried first; by HTTP only where the controller's address is known."""
    http_mb: Annotated[int, Meta(ge=0)] = 0
    """Blobs of at least this size come by HTTP; 0: none is too large for the broker."""


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a class of devices can run, and what an artifact for it must prove."""

    name: Name
    description: str = ""
    fits: Fits = Fits()
    numerics: Numerics = Numerics()
    operators: tuple[Operator, ...] = ()
    """Allowed builtin operators; empty: every builtin operator. Custom operators are never allowed."""
    budgets: Budgets = Budgets()
    gate: Gate = Gate()
    runtime: RuntimeSettings = RuntimeSettings()
    fetch: Fetch = Fetch()


class Match(NamedTuple):
    """Whether a profile fits a device. `reasons` has one line per condition, kept or not."""

    fits: bool
    reasons: tuple[str, ...]


class _Condition(NamedTuple):
    holds: bool
    reason: str


def match(profile: Profile, facts: Facts) -> Match:
    """Check every condition of `profile.fits` against `facts`; it fits when all hold."""
    conditions = _conditions(profile, facts)
    reasons = tuple(f"{'ok' if c.holds else 'no'}: {c.reason}" for c in conditions)
    return Match(all(c.holds for c in conditions), reasons)


def choose(profiles: Iterable[Profile], facts: Facts) -> Profile | None:
    """The most specific profile that fits: an accelerator beats a board beats a machine; then the name decides."""
    fitting = [profile for profile in profiles if match(profile, facts).fits]
    return min(fitting, key=_generality, default=None)


def load(path: str | Path) -> Profile:
    """Read a profile from a TOML file; raise ProfileError naming file, key and what is allowed."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}: cannot read the profile: {error}") from error
    return parse(text, str(path))


def parse(text: str, source: str) -> Profile:
    """Read a profile from TOML text. `source` names it in errors."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"{source}: not TOML: {error}") from error
    problem = unknown_key(raw, Profile)
    if problem is not None:
        raise ProfileError(f"{source}: {problem}")
    try:
        profile = msgspec.convert(raw, Profile)
    except msgspec.ValidationError as error:
        raise ProfileError(f"{source}: {describe(error, Profile)}") from error
    _check_operators(profile, source)
    return profile


def builtin() -> dict[str, Profile]:
    """The profiles that come with Lepta, by name."""
    profiles = [load(file) for file in sorted(Path(__file__).parent.glob("*.toml"))]
    return {profile.name: profile for profile in profiles}


def find(name_or_path: str) -> Profile:
    """A builtin profile by name, or one from a `.toml` file; raise ProfileError naming what there is."""
    if name_or_path.endswith(".toml"):
        return load(name_or_path)
    known = builtin()
    if name_or_path not in known:
        raise ProfileError(f"no profile is called {name_or_path!r}; there are {', '.join(known)}, or give a .toml file")
    return known[name_or_path]


def _conditions(profile: Profile, facts: Facts) -> list[_Condition]:
    fits = profile.fits
    board = facts.board.lower()
    runtimes = fits.runtimes or profile.runtime.runtimes
    enough = facts.memory_mb >= fits.min_memory_mb
    return [
        _one_of("machine", fits.machines, lambda wanted: wanted == facts.machine, facts.machine),
        _one_of("system", fits.systems, lambda wanted: wanted == facts.system, facts.system),
        _one_of("accelerator", fits.accelerators, facts.accelerators.__contains__, _listed(facts.accelerators)),
        _one_of("board", fits.boards, lambda wanted: wanted.lower() in board, facts.board or "unknown"),
        _Condition(enough, f"memory {facts.memory_mb} MB, at least {fits.min_memory_mb} MB wanted"),
        _one_of("runtime", runtimes, facts.runtimes.__contains__, _listed(facts.runtimes)),
    ]


def _one_of(what: str, wanted: Sequence[str], holds: Callable[[str], bool], found: str) -> _Condition:
    if not wanted:
        return _Condition(True, f"{what} {found}, any will do")
    return _Condition(any(map(holds, wanted)), f"{what} {found}, wanted {' or '.join(wanted)}")


def _listed(values: Sequence[str]) -> str:
    return ", ".join(values) or "none"


def _generality(profile: Profile) -> tuple[bool, bool, bool, int, str]:
    fits = profile.fits
    return (not fits.accelerators, not fits.boards, not fits.machines, -fits.min_memory_mb, profile.name)


def _check_operators(profile: Profile, source: str) -> None:
    for operator in profile.operators:
        if operator not in BUILTIN_OPERATORS:
            near = [known for known in sorted(BUILTIN_OPERATORS) if _plain(operator) in _plain(known)][:5]
            hint = f"; did you mean {' or '.join(near)}?" if near else ", such as CONV_2D or FULLY_CONNECTED"
            raise ProfileError(f"{source}: key operators: {operator!r} is no TFLite builtin operator{hint}")


def _plain(name: str) -> str:
    return re.sub("[^A-Z0-9]", "", name)
