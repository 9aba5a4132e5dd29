"""What the store keeps, as plain frozen values: one class per table, one field per column. What is
kept in pages stands in `entries`.

Times are seconds since 1970, for people; they decide nothing. Digests are SHA-256 in hex.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

import msgspec

from agent.contract import messages
from agent.contract.manifest import FileRef, Preprocessing, Shadow, Target, Watch
from agent.contract.messages import DesiredModel, ModelState, SwapRecord
from controller.policy import Override
from controller.terms import Terms
from firmware_profiles.profile import Facts

RunState = Literal["queued", "running", "done", "failed", "cancelled"]
RolloutState = Literal["running", "done", "failed", "aborted", "withdrawn"]
JobState = Literal["queued", "running", "paused", "done", "failed", "cancelled"]
DeviceState = Literal["pending", "approved", "revoked"]
ShardState = Literal["pending", "leased", "accepted", "quarantined"]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A row as a value."""


class File(Record, frozen=True, kw_only=True):
    """A file in the catalog; who uses it stands in a table of its own."""

    digest: str
    size: int
    created_at: float


class Model(Record, frozen=True, kw_only=True):
    name: str
    created_at: float
    floor: int = 0
    """No device installs a manifest of the model with a lower sequence. Only raised, for security."""
    policy: Override = Override()


class Version(Record, frozen=True, kw_only=True):
    """An immutable source. `source` and `data` are digests of files in the catalog."""

    model: str
    version: int
    """0 asks `writes.add_version` for the next number."""
    source: str
    source_name: str
    data: str | None = None
    data_name: str = ""
    """Its ending says what kind of data it is; empty: `.npz`."""
    labels: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    created_at: float


class Artifact(Record, frozen=True, kw_only=True):
    """Built files for one version and one profile, with the signed manifest's envelope."""

    digest: str
    """SHA-256 of the .tflite bytes."""
    model: str
    version: int
    profile: str
    files: dict[str, FileRef]
    manifest: str
    """Digest of the manifest's envelope, a file in the catalog."""
    sequence: int
    """The manifest's; grows per model."""
    report: dict[str, Any] = {}
    """The artifact's entry in the optimizer's report."""
    run: str | None = None
    created_at: float
    signed: bool = True
    """False: `manifest` is that of the bare manifest, which waits for the release key."""
    bundle: str = ""
    """Digest of the signature that other tools check, see `controller.bundle`; empty where there is none."""
    target: Target = Target()


class Run(Record, frozen=True, kw_only=True):
    """One go of the optimizer."""

    id: str
    model: str
    version: int
    profiles: tuple[str, ...]
    strict: bool = False
    deploy: bool = False
    recipe: str = ""
    """A builtin recipe's name, or the text of one (TOML); empty: what fits the source."""
    compare: bool | None = None
    """Whether the report compares with other ways; None: as the recipe says."""
    trust: bool = False
    """Whether a source that can run code when it is loaded may do so."""
    terms: Terms = Terms()
    """What its artifacts are to ask of their devices."""
    state: RunState = "queued"
    attempts: int = 0
    """How often the optimizer began with it; one that was stopped on purpose does not count."""
    step: str = ""
    profile: str = ""
    fraction: float = 0.0
    detail: str = ""
    left_s: float | None = None
    """Seconds that it is likely to take still."""
    error: str | None = None
    who: str | None = None
    rejected: tuple[dict[str, Any], ...] = ()
    report: dict[str, Any] | None = None
    release: str | None = None
    rollout: str | None = None
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None


class Release(Record, frozen=True, kw_only=True):
    """A version offered to the fleet, with its artifacts: digests by profile."""

    id: str
    model: str
    version: int
    artifacts: dict[str, str]
    created_at: float


class Extra(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one rollout asks of its devices above what the manifests ask."""

    watch: Watch | None = None
    shadow: Shadow | None = None


class Rollout(Record, frozen=True, kw_only=True):
    id: str
    release: str
    model: str
    version: int
    extra: Extra = Extra()
    """Asked of devices that join later, too."""
    state: RolloutState = "running"
    created_at: float
    finished_at: float | None = None


class RolloutDevice(Record, frozen=True, kw_only=True):
    """One device's share of a rollout."""

    rollout: str
    device: str
    profile: str | None = None
    artifact: str | None = None
    state: str = "pending"
    reason: str = ""
    history: tuple[str, ...] = ()
    previous: DesiredModel | None = None
    """What the device was to run of this model before: the way back."""


class Device(Record, frozen=True, kw_only=True):
    """A device: who it is, what it is to run and what it says it runs."""

    name: str
    public_key: str
    device_token_hash: str
    broker_user: str = ""
    state: DeviceState = "approved"
    """Only an approved device is listened to."""
    hardware: str = ""
    """What it says its hardware is; see agent.hardware."""
    claim: str = ""
    """Hash of the claim that it joined with."""
    certificate_expires: float | None = None
    facts: Facts
    labels: dict[str, str] = {}
    """The operator's: they stand above those that the device says."""
    simulated: bool = False
    agent_version: str = ""
    session: str = ""
    desired_generation: int = 0
    desired: tuple[DesiredModel, ...] = ()
    drain: bool = False
    """It gets nothing new: it is cordoned."""
    reported_generation: int = 0
    reported: tuple[ModelState, ...] = ()
    enrolled_at: float
    last_seen: float | None = None


class Claim(Record, frozen=True, kw_only=True):
    """The right to enrol. The token itself is never kept."""

    token_hash: str
    expires_at: float
    uses_left: int
    labels: dict[str, str] = {}
    """Given to each device that joins with it."""
    approve: bool = True
    """False: a device that joins with it waits until somebody approves it."""
    hardware: str = ""
    """Only this hardware may use it; empty: any."""
    created_at: float


class Certificate(Record, frozen=True, kw_only=True):
    """A client certificate that our CA signed, until it expires."""

    serial: str
    """In hex."""
    subject: str
    """The device's name."""
    issued_at: float
    expires_at: float
    revoked_at: float | None = None


class Client(Record, frozen=True, kw_only=True):
    """A user's program at the broker."""

    name: str
    password: str
    """As the broker's password file has it: salted and hashed."""
    predictions: tuple[str, ...] = ()
    """Models whose predictions it may read; "+" for all."""
    publishes: tuple[str, ...] = ()
    """Topics of its own that it may publish on."""
    created_at: float


class Binding(Record, frozen=True, kw_only=True):
    """A model's input on some devices, or on all that are to run the model."""

    name: str
    devices: tuple[str, ...] = ()
    """Empty: every device."""
    spec: messages.Binding
    """As devices are told; its topic may hold `{device}`."""
    created_at: float

    def concerns(self, device: str, desired: Collection[DesiredModel]) -> bool:
        """Is this device to read it, which is to run these models?"""
        return (not self.devices or device in self.devices) and any(m.model == self.spec.model for m in desired)


class ApiKey(Record, frozen=True, kw_only=True):
    """The right to call the API. The key itself is never kept."""

    id: str
    """The public part of the key."""
    hash: str
    name: str
    scopes: tuple[str, ...]
    created_at: float
    expires_at: float | None = None
    last_used: float | None = None


class Swap(Record, frozen=True, kw_only=True):
    """A swap as its device told it. `id` 0 asks for the next number."""

    id: int = 0
    device: str
    model: str
    at: float
    record: SwapRecord


class JobShare(msgspec.Struct, frozen=True, kw_only=True):
    """What a device did for a job."""

    shards: int = 0
    rows: int = 0
    busy_s: float = 0.0


class Job(Record, frozen=True, kw_only=True):
    """One model over many rows. `input` and `result` are digests of files in the catalog."""

    id: str
    model: str
    version: int
    input: str
    reduce: str
    state: JobState = "queued"
    profile: str | None = None
    artifact: str = ""
    runtime: str = ""
    mixed: bool = False
    rows: int = 0
    shard_rows: int = 0
    shards: int = 0
    accepted: int = 0
    moved: int = 0
    duplicates_refused: int = 0
    lost: int = 0
    quarantined: int = 0
    devices: dict[str, JobShare] = {}
    bytes_moved: int = 0
    metrics: dict[str, float] | None = None
    result: str | None = None
    error: str | None = None
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    makespan_s: float | None = None
    priority: int = 0
    """Of the jobs that want a device, those with the highest get it."""
    canaries: int = 0
    """Rows that are hidden in every shard, to find devices that compute wrongly."""
    settings: dict[str, Any] = {}
    """Of the reducer."""
    format: Literal["npz", "parquet"] = "npz"
    device_s: float = 0.0
    """What it cost: seconds that devices computed, answers that counted for nothing included."""
    bytes_cached: int = 0
    """Of inputs that devices had already."""
    bytes_packed: int = 0
    """That packing saved on the way."""


class Shard(Record, frozen=True, kw_only=True):
    """Rows `first` to `last` (exclusive) of a job's input; the row is also the record of the lease."""

    job: str
    number: int
    first: int
    last: int
    state: ShardState = "pending"
    attempt: int = 0
    device: str = ""
    artifact: str = ""
    runtime: str = ""
    busy_s: float = 0.0
    result: str | None = None
    """Where the accepted result lies: a digest, or a name under the data folder."""
    offset: int = 0
    length: int = 0
    reason: str = ""
    blob: str = ""
    """Digest of its inputs, where they went to the device by blob: it holds them from then on, as long as it can."""
