"""The first tables."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    _claims()
    _devices()
    _files()
    _models()
    _requests()
    _file_uses()
    _jobs()
    _swaps()
    _versions()
    _artifacts()
    _releases()
    _runs()
    _shards()
    _rollouts()
    _rollout_devices()


def _claims() -> None:
    op.create_table(
        "claims",
        _text("token_hash"),
        _number("expires_at"),
        _integer("uses_left"),
        _number("created_at"),
        sa.PrimaryKeyConstraint("token_hash"),
    )


def _devices() -> None:
    op.create_table(
        "devices",
        _text("name"),
        _text("public_key"),
        _text("device_token_hash"),
        _text("broker_user"),
        _json("facts"),
        _json("labels"),
        _flag("simulated"),
        _text("agent_version"),
        _text("session"),
        _integer("desired_generation"),
        _json("desired"),
        _flag("drain"),
        _integer("reported_generation"),
        _json("reported"),
        _number("enrolled_at"),
        _number("last_seen", nullable=True),
        sa.PrimaryKeyConstraint("name"),
        sa.UniqueConstraint("device_token_hash"),
    )


def _files() -> None:
    op.create_table(
        "files", _text("digest"), _integer("size"), _number("created_at"), sa.PrimaryKeyConstraint("digest")
    )


def _models() -> None:
    op.create_table("models", _text("name"), _number("created_at"), sa.PrimaryKeyConstraint("name"))


def _requests() -> None:
    op.create_table(
        "requests",
        _text("id"),
        _text("trace_id"),
        _text("model"),
        _integer("version"),
        _text("artifact"),
        _text("device"),
        _text("runtime"),
        _text("state"),
        _integer("attempts"),
        _number("received_at"),
        _json("steps"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("requests_by_model", "requests", ["model", "received_at"])
    op.create_index("requests_by_time", "requests", ["received_at"])


def _file_uses() -> None:
    op.create_table(
        "file_uses",
        _text("digest"),
        _text("owner"),
        sa.ForeignKeyConstraint(["digest"], ["files.digest"]),
        sa.PrimaryKeyConstraint("digest", "owner"),
    )
    op.create_index("ix_file_uses_owner", "file_uses", ["owner"])


def _jobs() -> None:
    op.create_table(
        "jobs",
        _text("id"),
        _text("model"),
        _integer("version"),
        _text("input"),
        _text("reduce"),
        _text("state"),
        _text("profile", nullable=True),
        _text("artifact"),
        _text("runtime"),
        _flag("mixed"),
        _integer("rows"),
        _integer("shard_rows"),
        _integer("shards"),
        _integer("accepted"),
        _integer("moved"),
        _integer("duplicates_refused"),
        _integer("lost"),
        _integer("quarantined"),
        _json("devices"),
        _integer("bytes_moved"),
        _json("metrics", nullable=True),
        _text("result", nullable=True),
        _text("error", nullable=True),
        _number("created_at"),
        _number("started_at", nullable=True),
        _number("finished_at", nullable=True),
        _number("makespan_s", nullable=True),
        sa.ForeignKeyConstraint(["input"], ["files.digest"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_jobs_state", "jobs", ["state"])


def _swaps() -> None:
    op.create_table(
        "swaps",
        _integer("id"),
        _text("device"),
        _text("model"),
        _number("at"),
        _json("record"),
        sa.ForeignKeyConstraint(["device"], ["devices.name"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_swaps_device", "swaps", ["device"])


def _versions() -> None:
    op.create_table(
        "versions",
        _text("model"),
        _integer("version"),
        _text("source"),
        _text("source_name"),
        _text("data", nullable=True),
        _json("labels"),
        _json("preprocessing", nullable=True),
        _number("created_at"),
        sa.ForeignKeyConstraint(["data"], ["files.digest"]),
        sa.ForeignKeyConstraint(["model"], ["models.name"]),
        sa.ForeignKeyConstraint(["source"], ["files.digest"]),
        sa.PrimaryKeyConstraint("model", "version"),
    )


def _artifacts() -> None:
    op.create_table(
        "artifacts",
        _text("model"),
        _integer("version"),
        _text("profile"),
        _text("digest"),
        _json("files"),
        _text("manifest"),
        _integer("sequence"),
        _json("report"),
        _text("run", nullable=True),
        _number("created_at"),
        sa.ForeignKeyConstraint(["manifest"], ["files.digest"]),
        sa.ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"]),
        sa.PrimaryKeyConstraint("model", "version", "profile"),
        sa.UniqueConstraint("model", "sequence"),
    )
    op.create_index("artifacts_by_digest", "artifacts", ["digest"])


def _releases() -> None:
    op.create_table(
        "releases",
        _text("id"),
        _text("model"),
        _integer("version"),
        _json("artifacts"),
        _number("created_at"),
        sa.ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"]),
        sa.PrimaryKeyConstraint("id"),
    )


def _runs() -> None:
    op.create_table(
        "runs",
        _text("id"),
        _text("model"),
        _integer("version"),
        _json("profiles"),
        _flag("strict"),
        _flag("deploy"),
        _text("state"),
        _text("step"),
        _text("profile"),
        _number("fraction"),
        _text("detail"),
        _text("error", nullable=True),
        _text("who", nullable=True),
        _json("rejected"),
        _json("report", nullable=True),
        _text("release", nullable=True),
        _text("rollout", nullable=True),
        _number("created_at"),
        _number("started_at", nullable=True),
        _number("finished_at", nullable=True),
        sa.ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_runs_state", "runs", ["state"])


def _shards() -> None:
    op.create_table(
        "shards",
        _text("job"),
        _integer("number"),
        _integer("first"),
        _integer("last"),
        _text("state"),
        _integer("attempt"),
        _text("device"),
        _text("artifact"),
        _text("runtime"),
        _number("busy_s"),
        _text("result", nullable=True),
        _integer("offset"),
        _integer("length"),
        _text("reason"),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"]),
        sa.PrimaryKeyConstraint("job", "number"),
    )


def _rollouts() -> None:
    op.create_table(
        "rollouts",
        _text("id"),
        _text("release"),
        _text("model"),
        _integer("version"),
        _text("state"),
        _number("created_at"),
        _number("finished_at", nullable=True),
        sa.ForeignKeyConstraint(["release"], ["releases.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_rollouts_state", "rollouts", ["state"])


def _rollout_devices() -> None:
    op.create_table(
        "rollout_devices",
        _text("rollout"),
        _text("device"),
        _text("profile", nullable=True),
        _text("artifact", nullable=True),
        _text("state"),
        _text("reason"),
        _json("history"),
        _json("previous", nullable=True),
        sa.ForeignKeyConstraint(["rollout"], ["rollouts.id"]),
        sa.PrimaryKeyConstraint("rollout", "device"),
    )


def _text(name: str, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.String(), nullable=nullable)


def _number(name: str, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.Float(), nullable=nullable)


def _integer(name: str, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.Integer(), nullable=nullable)


def _flag(name: str, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.Boolean(), nullable=nullable)


def _json(name: str, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.JSON(), nullable=nullable)
