"""The tables: one per record of `records`, and those of pages. SQLModel does not validate tables: values come and go as
records."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ForeignKeyConstraint, Index, MetaData, Table, UniqueConstraint
from sqlmodel import Field, SQLModel

from controller import records
from controller.records import Record


class _Table(SQLModel):
    # A registry of our own: other users of SQLModel in this process stay out of our migrations.
    metadata = MetaData()


def _json(nullable: bool = False) -> Any:
    return Field(sa_type=JSON(none_as_null=True), nullable=nullable)


class Files(_Table, table=True):
    __tablename__ = "files"
    digest: str = Field(primary_key=True)
    size: int
    created_at: float


class FileUses(_Table, table=True):
    """Who needs a file. A reference count that every step may set twice."""

    __tablename__ = "file_uses"
    digest: str = Field(primary_key=True, foreign_key="files.digest")
    owner: str = Field(primary_key=True, index=True)


class Models(_Table, table=True):
    __tablename__ = "models"
    name: str = Field(primary_key=True)
    created_at: float
    floor: int
    policy: Any = _json()


class Versions(_Table, table=True):
    __tablename__ = "versions"
    model: str = Field(primary_key=True, foreign_key="models.name")
    version: int = Field(primary_key=True)
    source: str = Field(foreign_key="files.digest")
    source_name: str
    data: str | None = Field(foreign_key="files.digest")
    data_name: str
    labels: Any = _json()
    preprocessing: Any = _json(nullable=True)
    created_at: float


class Artifacts(_Table, table=True):
    __tablename__ = "artifacts"
    __table_args__ = (
        ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"]),
        UniqueConstraint("model", "sequence"),
        Index("artifacts_by_digest", "digest"),
    )
    # The same bytes may be built for two profiles or versions: each has its own manifest.
    model: str = Field(primary_key=True)
    version: int = Field(primary_key=True)
    profile: str = Field(primary_key=True)
    digest: str
    files: Any = _json()
    manifest: str = Field(foreign_key="files.digest")
    sequence: int
    report: Any = _json()
    run: str | None
    created_at: float
    signed: bool
    bundle: str
    target: Any = _json()


class Runs(_Table, table=True):
    __tablename__ = "runs"
    __table_args__ = (ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"]),)
    id: str = Field(primary_key=True)
    model: str
    version: int
    profiles: Any = _json()
    strict: bool
    deploy: bool
    recipe: str
    compare: bool | None
    trust: bool
    terms: Any = _json()
    state: str = Field(index=True)
    attempts: int
    step: str
    profile: str
    fraction: float
    detail: str
    left_s: float | None
    error: str | None
    who: str | None
    rejected: Any = _json()
    report: Any = _json(nullable=True)
    release: str | None
    rollout: str | None
    created_at: float
    started_at: float | None
    finished_at: float | None


class Releases(_Table, table=True):
    __tablename__ = "releases"
    __table_args__ = (ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"]),)
    id: str = Field(primary_key=True)
    model: str
    version: int
    artifacts: Any = _json()
    created_at: float


class Rollouts(_Table, table=True):
    __tablename__ = "rollouts"
    id: str = Field(primary_key=True)
    release: str = Field(foreign_key="releases.id")
    model: str
    version: int
    extra: Any = _json()
    state: str = Field(index=True)
    created_at: float
    finished_at: float | None


class RolloutDevices(_Table, table=True):
    __tablename__ = "rollout_devices"
    rollout: str = Field(primary_key=True, foreign_key="rollouts.id")
    device: str = Field(primary_key=True)
    profile: str | None
    artifact: str | None
    state: str
    reason: str
    history: Any = _json()
    previous: Any = _json(nullable=True)


class Devices(_Table, table=True):
    __tablename__ = "devices"
    name: str = Field(primary_key=True)
    public_key: str = Field(index=True)
    device_token_hash: str = Field(unique=True)
    broker_user: str
    state: str
    hardware: str
    claim: str
    certificate_expires: float | None
    facts: Any = _json()
    labels: Any = _json()
    simulated: bool
    agent_version: str
    session: str
    desired_generation: int
    desired: Any = _json()
    drain: bool
    reported_generation: int
    reported: Any = _json()
    enrolled_at: float
    last_seen: float | None


class Claims(_Table, table=True):
    __tablename__ = "claims"
    token_hash: str = Field(primary_key=True)
    expires_at: float
    uses_left: int
    labels: Any = _json()
    approve: bool
    hardware: str
    created_at: float


class Certificates(_Table, table=True):
    __tablename__ = "certificates"
    serial: str = Field(primary_key=True)
    subject: str = Field(index=True)
    issued_at: float
    expires_at: float
    revoked_at: float | None


class Clients(_Table, table=True):
    __tablename__ = "clients"
    name: str = Field(primary_key=True)
    password: str
    predictions: Any = _json()
    publishes: Any = _json()
    created_at: float


class Bindings(_Table, table=True):
    __tablename__ = "bindings"
    name: str = Field(primary_key=True)
    devices: Any = _json()
    spec: Any = _json()
    created_at: float


class ApiKeys(_Table, table=True):
    __tablename__ = "api_keys"
    id: str = Field(primary_key=True)
    hash: str = Field(unique=True)
    name: str
    scopes: Any = _json()
    created_at: float
    expires_at: float | None
    last_used: float | None


class Swaps(_Table, table=True):
    __tablename__ = "swaps"
    id: int | None = Field(default=None, primary_key=True)
    device: str = Field(foreign_key="devices.name", index=True)
    model: str
    at: float
    record: Any = _json()


class Jobs(_Table, table=True):
    __tablename__ = "jobs"
    id: str = Field(primary_key=True)
    model: str
    version: int
    input: str = Field(foreign_key="files.digest")
    reduce: str
    state: str = Field(index=True)
    profile: str | None
    artifact: str
    runtime: str
    mixed: bool
    rows: int
    shard_rows: int
    shards: int
    accepted: int
    moved: int
    duplicates_refused: int
    lost: int
    quarantined: int
    devices: Any = _json()
    bytes_moved: int
    metrics: Any = _json(nullable=True)
    result: str | None
    error: str | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    makespan_s: float | None
    priority: int
    canaries: int
    settings: Any = _json()
    format: str
    device_s: float
    bytes_cached: int
    bytes_packed: int


class Shards(_Table, table=True):
    __tablename__ = "shards"
    job: str = Field(primary_key=True, foreign_key="jobs.id")
    number: int = Field(primary_key=True)
    first: int
    last: int
    state: str
    attempt: int
    device: str
    artifact: str
    runtime: str
    busy_s: float
    result: str | None
    offset: int
    length: int
    reason: str
    blob: str


def _page_indexes(name: str) -> tuple[Index, ...]:
    return (
        Index(f"{name}_by_time", "last_at", "first_at", "rows"),
        Index(f"{name}_by_model", "model", "last_at", "first_at"),
        Index(f"{name}_by_last", "last_id", "id"),
    )


class _Pages(_Table):
    """Rows that hold many entries each, see `pages.Page`."""

    id: str = Field(primary_key=True)
    last_id: str
    model: str
    marks: str
    first_at: float
    last_at: float
    rows: int
    size: int
    body: bytes


class RequestPages(_Pages, table=True):
    __tablename__ = "request_pages"
    __table_args__ = _page_indexes("request_pages")


class AnswerPages(_Pages, table=True):
    __tablename__ = "answer_pages"
    __table_args__ = _page_indexes("answer_pages")


class AnswerSizes(_Table, table=True):
    """What the answers of each model take, so that nobody has to add them up."""

    __tablename__ = "answer_sizes"
    model: str = Field(primary_key=True)
    rows: int
    bytes: int


METADATA = _Table.metadata
FILE_USES: Table = METADATA.tables["file_uses"]
REQUEST_PAGES: Table = METADATA.tables["request_pages"]
ANSWER_PAGES: Table = METADATA.tables["answer_pages"]
ANSWER_SIZES: Table = METADATA.tables["answer_sizes"]
TABLES: dict[type[Record], Table] = {
    records.File: METADATA.tables["files"],
    records.Model: METADATA.tables["models"],
    records.Version: METADATA.tables["versions"],
    records.Artifact: METADATA.tables["artifacts"],
    records.Run: METADATA.tables["runs"],
    records.Release: METADATA.tables["releases"],
    records.Rollout: METADATA.tables["rollouts"],
    records.RolloutDevice: METADATA.tables["rollout_devices"],
    records.Device: METADATA.tables["devices"],
    records.Claim: METADATA.tables["claims"],
    records.Certificate: METADATA.tables["certificates"],
    records.Client: METADATA.tables["clients"],
    records.Binding: METADATA.tables["bindings"],
    records.ApiKey: METADATA.tables["api_keys"],
    records.Swap: METADATA.tables["swaps"],
    records.Job: METADATA.tables["jobs"],
    records.Shard: METADATA.tables["shards"],
}
