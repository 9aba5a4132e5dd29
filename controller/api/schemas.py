"""Bodies of requests. Tables do not validate, so the edge does; unknown fields are refused by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from controller.identity.api_keys import SCOPES, KeyScope
from controller.policy import Keep, OnDemand

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="SHA-256 in lower-case hex, from PUT /files")]
Name = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9._-]{0,62}$")]
Labels = Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=10_000)]

LabelKey = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$")]
DeviceLabels = Annotated[
    dict[LabelKey, Annotated[str, Field(max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")]], Field(max_length=64)
]
Request = Annotated[str, Field(max_length=4000, description="a certification request (PKCS #10, PEM) of a P-256 key")]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PreprocessingBody(Body):
    """How an image becomes the model's input."""

    height: Annotated[int, Field(ge=1, le=8192)]
    width: Annotated[int, Field(ge=1, le=8192)]
    channels: Literal[1, 3] = 1
    scale: float = 1 / 255
    offset: float = 0.0
    invert: bool = False


TermsBody = Annotated[
    dict[str, Any],
    Field(description="what the manifests ask of devices: expires_at, target, runtime_minimum, watch, shadow"),
]


class NewVersion(Body):
    source: Digest
    source_name: Annotated[str, Field(min_length=1, max_length=200)]
    data: Digest | None = None
    data_name: Annotated[str, Field(max_length=200, description="its ending may say what kind of data it is")] = ""
    labels: Labels = []
    preprocessing: PreprocessingBody | None = None


class NewRun(Body):
    model: Name
    version: Annotated[int, Field(ge=1)]
    profiles: Annotated[list[Name], Field(max_length=100)] | None = None
    strict: bool = False
    deploy: bool = False
    recipe: Annotated[str, Field(description="a builtin recipe's name, or the text of one (TOML)")] = ""
    compare: Annotated[bool | None, Field(description="compare with other ways; null: as the recipe says")] = None
    trust: Annotated[bool, Field(description="let a source run code when it is loaded; for keys that may admin")] = (
        False
    )
    terms: TermsBody = {}


class NewImport(Body):
    model: Name
    report: dict[str, Any]
    files: Annotated[dict[str, Digest], Field(max_length=1000)]


class NewRelease(Body):
    model: Name
    version: Annotated[int, Field(ge=1)]
    terms: TermsBody = {}


class NewRollout(Body):
    release: str
    watch: Annotated[dict[str, Any], Field(description="what counts in place of the manifest's watch")] = {}
    shadow: Annotated[dict[str, Any], Field(description="in place of the manifest's shadow phase")] = {}


class SignedManifest(Body):
    model: Name
    version: Annotated[int, Field(ge=1)]
    profile: Name
    envelope: Annotated[str, Field(max_length=700_000)]
    bundle: Annotated[str, Field(max_length=16_000)]


class NewSignatures(Body):
    signed: Annotated[list[SignedManifest], Field(min_length=1, max_length=1000)]


class NewFloor(Body):
    model: Name
    version: Annotated[int, Field(ge=1)]


class NewRoot(Body):
    envelope: Annotated[str, Field(max_length=16_000, description="as `lepta release root` wrote it")]


class NewClaim(Body):
    expires_s: Annotated[float, Field(gt=0, le=366 * 86400)] = 3600.0
    uses: Annotated[int, Field(ge=1)] = 1
    labels: DeviceLabels = {}
    approve: Annotated[bool, Field(description="false: a device that joins with it waits for somebody's approval")] = (
        True
    )
    hardware: Annotated[str, Field(pattern="^([0-9a-f]{8,64})?$", description="only this; see lepta-agent facts")] = ""


class Enrolment(Body):
    token: Annotated[str, Field(min_length=1, max_length=200)]
    name: Name | None = None
    derived: Annotated[bool, Field(description="nobody chose the name: it may be changed")] = False
    csr: Request
    hardware: Annotated[str, Field(pattern="^([0-9a-f]{8,64})?$")] = ""
    facts: dict[str, Any]


class NewCertificate(Body):
    csr: Request


class LabelChange(Body):
    put: DeviceLabels = {}
    remove: Annotated[list[LabelKey], Field(max_length=64)] = []


class NewClient(Body):
    name: Name
    predictions: Annotated[
        list[Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9._-]{0,62}|\+)$")]],
        Field(max_length=100, description="models whose predictions it may read; + for all"),
    ] = []
    publishes: Annotated[
        list[Annotated[str, Field(max_length=200)]],
        Field(max_length=100, description="topics outside of lepta/ that it may publish on, such as those of bindings"),
    ] = []


class NewJob(Body):
    model: Name
    input: Digest
    reduce: Annotated[str, Field(min_length=1, max_length=100)] = "score"
    settings: Annotated[dict[str, Any], Field(description="Of the reducer")] = {}
    format: Annotated[Literal["npz", "parquet"], Field(description="Of the result")] = "npz"
    version: Annotated[int, Field(ge=1)] | None = None
    profile: Name | None = None
    mixed: bool = False
    priority: Annotated[int, Field(ge=-100, le=100, description="Higher first; equals share")] = 0
    canaries: Annotated[int, Field(ge=0, le=1000, description="Rows hidden in every shard to find bad devices")] = 0
    shard_rows: Annotated[int, Field(ge=1)] | None = None


class DigitsExample(Body):
    """The built-in example: a small CNN on scikit-learn's handwritten digits."""

    epochs: Annotated[int, Field(ge=1, le=200)] = 6
    seed: int = 0
    wrong_labels: bool = False


class NewPolicy(Body):
    """Of one model; null: as the controller has it."""

    on_demand: Annotated[OnDemand | None, Field(description="what a request may begin")] = None
    keep: Annotated[Keep | None, Field(description="of its answers; only `all` keeps what callers sent")] = None
    rate: Annotated[float | None, Field(ge=0, le=1)] = None
    days: Annotated[float | None, Field(gt=0, le=3650)] = None
    megabytes: Annotated[float | None, Field(ge=0, le=1_000_000)] = None


class AudioBody(Body):
    """Sizes in samples."""

    rate: Annotated[int, Field(ge=1, le=1_000_000, description="samples per second")]
    window: Annotated[int, Field(ge=1, le=1 << 20, description="samples of one prediction")]
    hop: Annotated[int, Field(ge=1, le=1 << 24, description="samples from one window to the next")]
    sample: Literal["int16", "float32"] = "int16"
    features: Literal["samples", "log-mel", "mfcc"] = "samples"
    frame: Annotated[int, Field(ge=0, le=1 << 16)] = 0
    step: Annotated[int, Field(ge=0, le=1 << 16)] = 0
    bands: Annotated[int, Field(ge=1, le=256)] = 40
    coefficients: Annotated[int, Field(ge=1, le=256)] = 10


class NewBinding(Body):
    name: Name
    model: Name
    topic: Annotated[str, Field(max_length=200, description="one topic; {device} is the name of the device")]
    format: Literal["tensor", "json", "image", "pcm"]
    input: Annotated[str, Field(max_length=200, description="of the model; empty: its only one")] = ""
    preprocessing: PreprocessingBody | None = None
    audio: AudioBody | None = None
    rate: Annotated[float, Field(ge=0, le=100_000, description="predictions per second at most; 0: no limit")] = 10.0
    keep: Annotated[int, Field(ge=1, le=1024, description="inputs that wait; the oldest is dropped")] = 4
    top_k: Annotated[int, Field(ge=1, le=100)] = 3
    devices: Annotated[list[Name], Field(max_length=1000, description="empty: every device")] = []


class NewKey(Body):
    name: Name
    scopes: Annotated[list[KeyScope], Field(min_length=1, max_length=len(SCOPES))]
    expires_s: Annotated[float, Field(gt=0, le=100 * 365 * 86400, description="Seconds; null: never")] | None = None
