"""What the REST API answers, as typed values.

Unknown fields are ignored, so that an older client reads a newer controller.
"""

from __future__ import annotations

from typing import Any

import msgspec

from agent.contract.manifest import Preprocessing
from agent.contract.messages import ModelState, SwapRecord
from firmware_profiles.profile import Facts


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """A JSON object of the API."""


class Broker(Reply, frozen=True, kw_only=True):
    kind: str = ""
    host: str
    port: int


class Info(Reply, frozen=True, kw_only=True):
    version: str
    url: str
    boot: str = ""
    data: str = ""
    broker: Broker | None = None


class BrokerAccess(Reply, frozen=True, kw_only=True):
    """Where the broker is and how to log in."""

    host: str
    port: int
    username: str | None = None
    password: str | None = None
    tls: bool = False


class StoredFile(Reply, frozen=True, kw_only=True):
    digest: str
    size: int


class Gate(Reply, frozen=True, kw_only=True):
    """Whether an artifact may be released. `loss`, `margin`, `bound_95` are shares of accuracy, 0 to 1."""

    passed: bool
    reasons: tuple[str, ...] = ()
    loss: float | None = None
    margin: float | None = None
    bound_95: float | None = None
    strict: bool = False


class Artifact(Reply, frozen=True, kw_only=True):
    """The optimizer's entry for one profile. Accuracies are shares, 0 to 1; sizes bytes; MACs per row."""

    profile: str
    digest: str = ""
    signed: bool = True
    """False: it waits for the release key, see `lepta release pending`."""
    bundle: str = ""
    """Digest of the signature that the `model_signing` tool checks; empty where there is none."""
    digests: dict[str, str] = {}
    """Of its files, by role."""
    bytes: int = 0
    bytes_before: int = 0
    """Of the source's weights as 32-bit floats; 0 where an older optimizer did not tell."""
    parameters: int = 0
    parameters_before: int = 0
    """Of the source model; 0 where an older optimizer did not tell."""
    macs: int = 0
    macs_before: int = 0
    made: str = ""
    """How the chosen candidate came about, for people."""
    accuracy_float: float | None = None
    accuracy_int8: float | None = None
    agreement: float | None = None
    sqnr_db: float | None = None
    latency_ms: float | None = None
    latency_runtime: str = ""
    runtimes: tuple[str, ...] = ("ai-edge-litert",)
    threads: int = 1
    gate: Gate | None = None
    files: dict[str, Any] = {}


class Rejected(Reply, frozen=True, kw_only=True):
    profile: str
    reasons: tuple[str, ...] = ()


class Version(Reply, frozen=True, kw_only=True):
    model: str
    version: int
    source: str = ""
    source_name: str = ""
    labels: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    created_at: float = 0.0
    artifacts: tuple[Artifact, ...] = ()


class Model(Reply, frozen=True, kw_only=True):
    """`serving` is the version that the fleet is to run; `versions` holds numbers or whole versions."""

    name: str
    versions: tuple[int | Version, ...] = ()
    latest: int | None = None
    serving: int | None = None


class Run(Reply, frozen=True, kw_only=True):
    id: str
    model: str
    version: int
    state: str
    profiles: tuple[str, ...] = ()
    step: str = ""
    profile: str = ""
    fraction: float = 0.0
    detail: str = ""
    error: str | None = None
    left_s: float | None = None
    """Seconds that it is likely to take still."""
    attempts: int = 0
    recipe: str = ""
    """A builtin recipe's name, or the text of one; empty: what fits the source."""
    artifacts: tuple[Artifact, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    deploy: bool = False
    release: str | None = None
    rollout: str | None = None
    created_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    report: dict[str, Any] | None = None


class RunProgress(Reply, frozen=True, kw_only=True):
    """How far a run is: the data of one server-sent event. Each tells everything anew."""

    id: str
    state: str
    step: str = ""
    profile: str = ""
    fraction: float = 0.0
    detail: str = ""
    left_s: float | None = None
    error: str | None = None
    rollout: str | None = None


class Release(Reply, frozen=True, kw_only=True):
    id: str
    model: str
    version: int


class RolloutDevice(Reply, frozen=True, kw_only=True):
    device: str
    state: str
    profile: str | None = None
    reason: str = ""


class Rollout(Reply, frozen=True, kw_only=True):
    id: str
    release: str
    model: str
    version: int
    state: str
    devices: tuple[RolloutDevice, ...] = ()
    created_at: float | None = None
    finished_at: float | None = None


class Claim(Reply, frozen=True, kw_only=True):
    """The right to join, told once, with what the device must know: where to ask, and whom to trust there."""

    token: str
    expires_at: float
    url: str = ""
    ca_fingerprint: str = ""
    """SHA-256 of the CA's certificate, in hex; empty where the controller speaks no TLS."""
    wheel_url: str = ""
    """Where the device finds Lepta itself; empty where the controller serves its own machine only."""
    wheel_sha256: str = ""


class Authority(Reply, frozen=True, kw_only=True):
    ca: str
    """PEM."""


class DeviceBroker(Reply, frozen=True, kw_only=True):
    """Where a device finds the broker. `host` "": where it finds the controller."""

    host: str = ""
    port: int = 0
    username: str = ""
    password: str = ""
    path: str = ""
    """A Unix socket of it, where the device is this machine and may open it; TCP else."""
    tls: bool = False
    public: bool = False
    at_once: bool = False
    """It sends small packets at once, and waits for no acknowledgement before."""


class Identity(Reply, frozen=True, kw_only=True):
    """What a device that joined is told. While it waits for approval, broker and certificate are empty."""

    agent: str
    device_token: str
    state: str
    hardware: str = ""
    broker: DeviceBroker = DeviceBroker()
    controller_key: str = ""
    release_key: str = ""
    root: str = ""
    """Envelope of the newest root document."""
    ca: str = ""
    certificate: str = ""
    not_before: float = 0.0
    not_after: float = 0.0


class Revoked(Reply, frozen=True, kw_only=True):
    """`by_broker`: the broker refuses it too. Otherwise devices share a password there, and only we do not listen."""

    device: str
    by_broker: bool
    claim_uses: int = 0
    """How many devices may still join with the claim that it joined with: it knows that token."""


class BrokerClient(Reply, frozen=True, kw_only=True):
    """A user's program. `password` is told once."""

    name: str
    predictions: tuple[str, ...] = ()
    publishes: tuple[str, ...] = ()
    created_at: float = 0.0
    host: str = ""
    port: int = 0
    password: str = ""
    ca: str = ""
    """PEM of the CA that signed the broker's certificate."""


class ProfileMatch(Reply, frozen=True, kw_only=True):
    profile: str
    fits: bool
    reasons: tuple[str, ...] = ()


class TimedSwap(SwapRecord, frozen=True, kw_only=True):
    """A swap record with the controller's clock (seconds since 1970) at its arrival; 0 where it is not told."""

    at: float = 0.0


class Device(Reply, frozen=True, kw_only=True):
    name: str
    state: str = "approved"
    """`pending`, `approved` or `revoked`."""
    online: bool = False
    cordoned: bool = False
    """It gets nothing new."""
    labels: dict[str, str] = {}
    """The operator's, above those that the device says itself."""
    key: str = ""
    """SHA-256 of its public key (DER), in hex."""
    hardware: str = ""
    certificate_expires: float | None = None
    """Seconds since 1970."""
    enrolled_at: float = 0.0
    profile: str | None = None
    match: tuple[ProfileMatch, ...] = ()
    facts: Facts | None = None
    simulated: bool = False
    load: dict[str, Any] | None = None
    desired_generation: int = 0
    reported_generation: int = 0
    models: tuple[ModelState, ...] = ()
    swaps: tuple[TimedSwap, ...] = ()
    agent_version: str = ""
    last_seen_s: float | None = None


class JobShare(Reply, frozen=True, kw_only=True):
    shards: int = 0
    rows: int = 0
    busy_s: float = 0.0


class Job(Reply, frozen=True, kw_only=True):
    id: str
    model: str
    state: str
    version: int = 0
    rows: int = 0
    shards: int = 0
    accepted: int = 0
    moved: int = 0
    duplicates_refused: int = 0
    lost: int = 0
    quarantined: int = 0
    devices: dict[str, JobShare] = {}
    artifact: str = ""
    runtime: str = ""
    profile: str | None = None
    mixed: bool = False
    bytes_moved: int = 0
    started_at: float | None = None
    finished_at: float | None = None
    makespan_s: float | None = None
    metrics: dict[str, float] | None = None
    error: str | None = None
    reduce: str = ""
    priority: int = 0
    canaries: int = 0
    settings: dict[str, Any] = {}
    format: str = "npz"
    device_s: float = 0.0
    """Seconds that devices computed for it."""
    bytes_cached: int = 0
    """Of inputs that were not moved because devices had them."""
    bytes_packed: int = 0


class Step(Reply, frozen=True, kw_only=True):
    step: str
    ms: float
    detail: str = ""


class Request(Reply, frozen=True, kw_only=True):
    """An inference request on its way through the article's steps."""

    id: str
    model: str
    state: str
    trace_id: str = ""
    version: int = 0
    artifact: str = ""
    device: str = ""
    runtime: str = ""
    attempts: int = 0
    received_at: float = 0.0
    steps: tuple[Step, ...] = ()


class Example(Reply, frozen=True, kw_only=True):
    """An example being made. `files` are digests by role: model, data, batch, seven."""

    id: str = ""
    state: str
    error: str | None = None
    files: dict[str, str] = {}
    labels: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    accuracy: float | None = None
    step: str = ""
    fraction: float = 0.0
    detail: str = ""


class ApiKey(Reply, frozen=True, kw_only=True):
    """`key` itself is told once, when it is made."""

    id: str
    name: str
    scopes: tuple[str, ...]
    created_at: float
    expires_at: float | None = None
    last_used: float | None = None
    key: str = ""
