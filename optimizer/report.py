"""What a run found out: `report.json`. People and the controller read it."""

from __future__ import annotations

from typing import Any

import msgspec

from agent.contract.manifest import Acceptance, Limits, Parity, Preprocessing
from agent.contract.tensors import TensorSpec


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the run's folder."""

    file: str
    digest: str
    size: int


class FloatModel(msgspec.Struct, frozen=True, kw_only=True):
    """The source model. Accuracies are None where there are no classes and labels."""

    parameters: int
    macs: int
    """Multiply-accumulates of one row."""
    bytes: int
    accuracy_validation: float | None
    accuracy_test: float | None
    accuracy_acceptance: float | None


class GateResult(msgspec.Struct, frozen=True, kw_only=True):
    """Judged on validation; shares of rows."""

    passed: bool
    reasons: tuple[str, ...]
    loss: float | None
    margin: float
    bound_95: float | None
    """One-sided 95 % bound of the loss (Tango 1998)."""
    strict: bool
    rows: int


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """One profile's files and figures. Accuracies are on test; agreement and SQNR on validation."""

    profile: str
    files: dict[str, File]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: tuple[str, ...]
    bytes: int
    parameters: int
    macs: int
    macs_before: int
    accuracy_float: float | None
    accuracy_int8: float | None
    agreement: float
    sqnr_db: float
    gate: GateResult
    latency_ms: float
    """Median of one row on this host."""
    latency_runtime: str
    latency_host: str
    memory_mb: float
    """What loading and running it adds to a process on this host."""
    parity: Parity
    acceptance: Acceptance
    runtimes: tuple[str, ...]
    threads: int
    limits: Limits


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    profile: str
    reasons: tuple[str, ...]
    gate: GateResult | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    version: int
    source: File
    data: str
    """Digest of the data file."""
    labels: tuple[str, ...]
    preprocessing: Preprocessing | None
    float_model: FloatModel = msgspec.field(name="float")
    artifacts: tuple[Artifact, ...]
    rejected: tuple[Rejected, ...]
    wall_s: float
    peak_memory_mb: float
    """Largest resident set of one step."""
    versions: dict[str, str]
    note: str = ""


def to_json(report: Report) -> bytes:
    return msgspec.json.format(msgspec.json.encode(report), indent=1)


def to_builtins(report: Report) -> dict[str, Any]:
    """As somebody reads it from the file: lists, no tuples."""
    built: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(report))
    return built
