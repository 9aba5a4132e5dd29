"""The signed description of an artifact: what it is, which files it has, and what it must prove before it serves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from agent.contract.tensors import TensorSpec
from agent.contract.topics import check_name

PAYLOAD_TYPE = "application/vnd.lepta.manifest.v1+json"
FORMAT = 1
# The files of an artifact, by role.
ROLES = ("model", "parity", "acceptance")

Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="SHA-256 of the exact bytes, in lower-case hex")]
Fraction = Annotated[float, Meta(ge=0, le=1)]


CAUSES = (
    "key", "changed", "unreadable", "mismatch", "sequence", "expired",
    "profile", "target", "size", "operator", "runtime", "load", "probe", "shadow",
)  # fmt: skip
"""Why a version was refused, in a word for programs. Later agents may say others."""


class ManifestError(ValueError):
    """A manifest that cannot be used; the message says why, `cause` is one of CAUSES."""

    def __init__(self, message: str, cause: str = "unreadable") -> None:
        super().__init__(message)
        self.cause = cause


class FileRef(msgspec.Struct, frozen=True):
    """A file by content. `size` in bytes."""

    digest: Digest
    size: Annotated[int, Meta(ge=0)]


class Parity(msgspec.Struct, frozen=True):
    """Was the conversion faithful? Measured on the parity set against the float model's outputs."""

    agreement: Fraction
    """Least share of rows whose top-1 class equals the float model's (1.0 where the output has no classes)."""
    sqnr_db: float
    """Least signal-to-quantization-noise ratio over all outputs, in dB."""


class Acceptance(msgspec.Struct, frozen=True):
    """Is this version any good? Measured on the model's acceptance set, which stays the same across versions."""

    minimum: Fraction
    """Least accuracy."""
    tolerated_loss: Fraction
    """How much accuracy may be lost against the version that serves."""


class Limits(msgspec.Struct, frozen=True):
    """What the artifact may take on its device; 0 means no limit."""

    memory_mb: float = 0
    latency_ms: float = 0


class Watch(msgspec.Struct, frozen=True):
    """How a version is looked after once it has the requests, and what sends it back. None: the agent's own limit."""

    answers: Annotated[int, Meta(ge=1)] | None = None
    """It stays after this many sound answers, or after `seconds`, whichever comes first."""
    seconds: Annotated[float, Meta(gt=0)] | None = None
    failures: Annotated[int, Meta(ge=1)] | None = None
    """Fewer faulty answers than this never send it back."""
    error_rate: Fraction | None = None
    """Share of faulty answers that is tolerated above what the version before had."""
    p95_ratio: Annotated[float, Meta(ge=0)] | None = None
    """Its p95 per row may be this many times that of the version before; 0: that is not looked at."""
    p95_ms: Annotated[float, Meta(ge=0)] | None = None
    """Its p95 per row, inside the worker; 0: no limit."""
    drift: Fraction | None = None
    """Share of answers that may move to other classes against the version before; 1: that is not looked at."""
    crashes: Annotated[int, Meta(ge=1)] | None = None
    """Its worker may end by itself fewer times than this."""


class Shadow(msgspec.Struct, frozen=True):
    """Before the switch the candidate may answer copies of live requests beside the version that serves."""

    requests: Annotated[int, Meta(ge=0)] = 0
    """At most so many are copied; 0: there is no such phase."""
    seconds: Annotated[float, Meta(gt=0)] = 30.0
    """It lasts at most so long. Where nobody asked anything, the probe alone decides."""
    good: Fraction = 0.95
    """Share of answers on which a good version agrees with the one before."""
    bad: Fraction = 0.75
    """Share on which one that must be refused does; less than `good`."""


class Preprocessing(msgspec.Struct, frozen=True):
    """How an image becomes the model's input: resize to (height, width), channels, then value * scale + offset."""

    height: int
    width: int
    channels: int = 1
    scale: float = 1 / 255
    offset: float = 0.0
    invert: bool = False
    """True where the model was trained on light strokes on dark ground and pictures come dark on light."""


class Target(msgspec.Struct, frozen=True):
    """Who may install it: any device that is named, or is in one of the groups. Empty: every device."""

    devices: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    """Labels as KEY=VALUE."""

    def takes(self, device: str, labels: Mapping[str, str]) -> bool:
        if not self.devices and not self.groups:
            return True
        return device in self.devices or any(f"{key}={value}" in self.groups for key, value in labels.items())

    def __str__(self) -> str:
        return ", ".join((*self.devices, *self.groups)) or "every device"


class Manifest(msgspec.Struct, frozen=True):
    """One artifact of one version for one profile. Signed once by the release key and never re-signed."""

    model: str
    version: Annotated[int, Meta(ge=1)]
    profile: str
    sequence: Annotated[int, Meta(ge=1)]
    """Grows with every manifest of the model; a floor in `desired` can shut out old ones."""
    issued_at: int
    """Seconds since 1970; for people, never decides."""
    source: Digest
    """Digest of the version's source file."""
    files: dict[str, FileRef]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: tuple[str, ...]
    parity: Parity
    acceptance: Acceptance
    runtimes: tuple[str, ...] = ("ai-edge-litert",)
    threads: int = 1
    limits: Limits = Limits()
    labels: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    format: int = FORMAT
    watch: Watch = Watch()
    shadow: Shadow = Shadow()
    expires_at: Annotated[int, Meta(ge=0)] = 0
    """Seconds since 1970; from then on nobody installs it anew. What serves goes on serving. 0: never."""
    target: Target = Target()
    runtime_minimum: dict[str, str] = {}
    """Least version by runtime, such as "2.1"; a runtime that is not named may have any."""

    @property
    def artifact(self) -> str:
        """The artifact's digest: the SHA-256 of its .tflite bytes."""
        return self.files["model"].digest


def encode(manifest: Manifest) -> bytes:
    """The exact bytes to sign."""
    return msgspec.json.encode(manifest)


def decode(payload: bytes) -> Manifest:
    """Read a manifest whose signature was verified; raise ManifestError for anything unusable."""
    try:
        manifest = msgspec.json.decode(payload, type=Manifest)
        check_name(manifest.model, "model")
    except (msgspec.DecodeError, ValueError) as error:
        raise ManifestError(f"not a manifest: {error}") from error
    if manifest.format != FORMAT:
        raise ManifestError(
            f"manifest format {manifest.format} is not known here; this agent reads format {FORMAT}: update it"
        )
    if set(manifest.files) != set(ROLES):
        raise ManifestError(
            f"a manifest names the files {', '.join(ROLES)}; this one names {', '.join(sorted(manifest.files))}"
        )
    return manifest


def is_digest(text: str) -> bool:
    return re.fullmatch("[0-9a-f]{64}", text) is not None
