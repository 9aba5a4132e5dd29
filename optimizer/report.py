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


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the data: `digest` is SHA-256 over its rows in their order."""

    name: str
    rows: int
    digest: str
    labelled: bool


class TestUse(msgspec.Struct, frozen=True, kw_only=True):
    """One look at the test rows. Only `decided` ones could change what is released."""

    what: str
    decided: bool


class GateResult(msgspec.Struct, frozen=True, kw_only=True):
    """Shares of rows; which rows is said beside it."""

    passed: bool
    reasons: tuple[str, ...]
    loss: float | None
    margin: float
    bound_95: float | None
    """One-sided 95 % bound of the loss (Tango 1998)."""
    strict: bool
    rows: int


class Parities(msgspec.Struct, frozen=True, kw_only=True):
    """How far the artifact's outputs are from those of the float model that it was made from, without labels."""

    where: str
    agreement: float
    """Share of rows with the same top-1 class."""
    sqnr_db: float
    cosine: float = 1.0
    max_error: float = 0.0
    judged: tuple[str, ...] = ()
    """Which of these the gate asked about; the others are shown."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One way that was tried for a profile, judged on validation; None: it did not come so far."""

    profile: str
    made: str
    """In words, such as "pruned to 25 %, int8"."""
    budget: float
    """Share of the source's parameters that it was to keep; 1: not pruned."""
    passed: bool
    chosen: bool
    reasons: tuple[str, ...]
    parameters: int | None = None
    macs: int | None = None
    bytes: int | None = None
    latency_ms: float | None = None
    accuracy_validation: float | None = None
    loss_validation: float | None = None
    """Against the source, paired by rows."""
    parities: tuple[Parities, ...] = ()
    float_operators: tuple[str, ...] = ()
    """Operators that stayed float."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the comparison; accuracies are shares. None: not measured."""

    name: str
    parameters: int | None = None
    zeros: float | None = None
    """Share of weights that are zero."""
    macs: int | None = None
    bytes: int | None = None
    packed_bytes: int | None = None
    """Compressed by zlib: what zeros are good for."""
    latency_ms: float | None = None
    accuracy_validation: float | None = None
    accuracy_test: float | None = None
    spread: float | None = None
    """Standard deviation of `accuracy_validation` over seeds, of the float model before it was quantized."""
    seeds: int = 1
    steps: int | None = None
    """Training steps, in all of this row's passes."""
    epoch_s: float | None = None
    train_s: float | None = None
    note: str = ""


class PassTime(msgspec.Struct, frozen=True, kw_only=True):
    """A pass of this run; a remembered one took nothing."""

    name: str
    remembered: bool
    wall_s: float
    peak_mb: float


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """An operator of the float graph and its error in the artifact; None where the artifact rounds nothing there."""

    name: str
    operator: str
    sqnr_db: float | None
    """Of what it writes: errors of the operators before it are in there."""
    own_sqnr_db: float | None = None
    """Of the model's outputs, if it alone is rounded: who is at fault."""
    max_error: float | None
    bytes: int
    macs: int
    float_kept: bool = False


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """A group of coupled channels: how many there were and how many stayed."""

    name: str
    before: int
    after: int


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """What structured pruning did for one budget."""

    budget: float
    seed: int
    parameters: int
    macs: int
    groups: tuple[Cut, ...]
    barriers: tuple[str, ...]
    """Layers without a rule and why; they were pruned around."""
    blocks: tuple[str, ...]
    accuracy_validation: float | None


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """One profile's files and figures. Accuracies are on test; agreement and SQNR on validation."""

    profile: str
    made: str
    """In words, such as "pruned to 25 %, int8"."""
    recipe: str
    files: dict[str, File]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: tuple[str, ...]
    bytes: int
    bytes_before: int
    """Of the source's weights as 32-bit floats."""
    parameters: int
    parameters_before: int
    macs: int
    macs_before: int
    accuracy_float: float | None
    accuracy_int8: float | None
    agreement: float
    sqnr_db: float
    parities: tuple[Parities, ...]
    float_operators: tuple[str, ...]
    gate: GateResult
    """On test where there is one, else on validation."""
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
    """A profile without an artifact: the reasons of the last candidate; `candidates` of the report has them all."""

    profile: str
    reasons: tuple[str, ...]
    gate: GateResult | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    version: int
    source: File
    source_kind: str
    recipe: str
    """Its name, or the file's."""
    settings: dict[str, Any]
    """The recipe as it was taken, whole."""
    seed: int
    data: str
    """Digest of the data file or folder."""
    splits: tuple[Split, ...]
    test_uses: tuple[TestUse, ...]
    labels: tuple[str, ...]
    preprocessing: Preprocessing | None
    float_model: FloatModel = msgspec.field(name="float")
    artifacts: tuple[Artifact, ...]
    rejected: tuple[Rejected, ...]
    candidates: tuple[Candidate, ...]
    rows: tuple[Row, ...]
    """The comparison: float, PTQ only, tfmot, from scratch, ours."""
    pruned: tuple[Pruned, ...]
    layers: dict[str, tuple[Layer, ...]]
    """By profile, in the order of execution."""
    passes: tuple[PassTime, ...]
    host: str
    wall_s: float
    peak_memory_mb: float
    """Largest resident set of one step."""
    versions: dict[str, str]
    notes: tuple[str, ...] = ()
    """What a reader must know beside the figures."""


def to_json(report: Report) -> bytes:
    return msgspec.json.format(msgspec.json.encode(report), indent=1)


def to_builtins(report: Report) -> dict[str, Any]:
    """As somebody reads it from the file: lists, no tuples."""
    built: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(report))
    return built
