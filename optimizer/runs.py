"""What a run is asked to do: `run.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from agent.contract.manifest import Preprocessing
from agent.contract.topics import TopicError, check_name
from firmware_profiles.allowed import describe, unknown_key
from firmware_profiles.profile import Profile, ProfileError, find
from optimizer.errors import RefusedError
from optimizer.settings import LIMITS


class RunSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One go of the optimizer: one source, several profiles."""

    model: str
    version: Annotated[int, Meta(ge=1)]
    source: str
    """Path of a model: see optimizer/sources."""
    data: str
    """Path of a file or a folder: see optimizer/dataset."""
    profiles: Annotated[tuple[str, ...], Meta(min_length=1, max_length=LIMITS.profiles)]
    """Names of builtin profiles, or paths of `.toml` files."""
    strict: bool = False
    """Judge every profile by the 95 % bound of the loss."""
    labels: Annotated[tuple[str, ...], Meta(max_length=LIMITS.labels)] = ()
    preprocessing: Preprocessing | None = None
    previous_acceptance: str | None = None
    """Path of the model's acceptance set, from its first version."""
    seed: Annotated[int, Meta(ge=0)] = 0
    recipe: str = ""
    """Name of a builtin recipe, or path of a `.toml` file; none: `default`, as far as the source can be trained."""
    compare: bool | None = None
    """Whether the report compares with other ways; None: as the recipe says."""
    trust: bool = False
    """Whether a source that can run code when it is loaded may do so."""
    cache: str | None = None
    """Folder that remembers what passes made; None: nothing is remembered."""
    cache_bytes: Annotated[int, Meta(ge=0)] = LIMITS.cache_bytes


def read_run(path: Path) -> RunSpec:
    """Read `run.json`; raise RefusedError naming the key and what is allowed."""
    try:
        raw = msgspec.json.decode(path.read_bytes(), type=dict)
    except (OSError, msgspec.DecodeError) as error:
        raise RefusedError(f"{path} cannot be read: {error}") from error
    problem = unknown_key(raw, RunSpec)
    if problem is not None:
        raise RefusedError(f"{path.name}: {problem}")
    try:
        run = msgspec.convert(raw, RunSpec)
        check_name(run.model, "model")
    except msgspec.ValidationError as error:
        raise RefusedError(f"{path.name}: {describe(error, RunSpec)}") from error
    except TopicError as error:
        raise RefusedError(str(error)) from error
    return run


def read_profiles(run: RunSpec) -> list[Profile]:
    """The run's profiles, each once; strict where the run says so."""
    try:
        found = {profile.name: profile for profile in map(find, run.profiles)}
    except ProfileError as error:
        raise RefusedError(str(error)) from error
    if not run.strict:
        return list(found.values())
    return [
        msgspec.structs.replace(profile, gate=msgspec.structs.replace(profile.gate, strict=True))
        for profile in found.values()
    ]
