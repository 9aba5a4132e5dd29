"""What the demo measured, as values: the JSON of `--report`, and the promises that it must keep. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from controller.demo.windows import Sample, Span, controls, during, latencies, percentile
from controller.replies import Artifact, Job, Run, TimedSwap

_FAITHFUL = 0.98
"""Share of the parity set on which a faithful conversion agrees with the float model, at least."""


class ArtifactFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One artifact against the model that it was made of. Accuracies are shares on the test data.

    `bytes_before`: the float32 parameters, 4 bytes each; the .keras file would flatter us, for it also holds the
    optimizer's state.
    """

    profile: str
    version: int
    parameters: int
    macs_before: int
    macs_after: int
    bytes_before: int
    bytes: int
    accuracy_float: float | None
    accuracy_int8: float | None
    agreement: float | None
    latency_ms: float | None
    gate_passed: bool


class DeviceSwap(msgspec.Struct, frozen=True, kw_only=True):
    """A swap as its device tells it."""

    device: str
    outcome: str
    fetched_bytes: int
    total_s: float
    gap_ms: float
    during_requests: int
    during_failed: int


class SwapFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The stream of requests, as its caller saw it. `requests` and `failed` count the whole stream."""

    requests: int
    failed: int
    per_s: float
    requests_control: int
    requests_during: int
    p50_control_ms: float | None
    p99_control_ms: float | None
    p50_during_ms: float | None
    p99_during_ms: float | None
    control_windows: int
    during_s: float
    """All stretches together; those of several devices may overlap."""
    devices: tuple[DeviceSwap, ...]
    errors: tuple[str, ...] = ()


class DeviceRefusal(msgspec.Struct, frozen=True, kw_only=True):
    """What one device found when it probed a version, and what it did. Shares of its golden sets."""

    device: str
    outcome: str
    reason: str = ""
    agreement: float | None = None
    """With the float model, on the parity set."""
    accuracy: float | None = None
    """On the model's acceptance set, which stays that of version 1."""


class RefusalFigures(msgspec.Struct, frozen=True, kw_only=True):
    """A version that was trained on wrong labels. `accuracy`: on its own data, which has them too."""

    version: int
    accuracy: float | None
    gate_passed: bool
    devices: tuple[DeviceRefusal, ...]
    answers: dict[str, int]
    """Requests asked afterwards, by the version that answered."""


class JobFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The batch job against a bare process that ran the same artifact over the same rows.

    `moved`: shards of the killed device that another one took over. `duplicates`: rows answered more than once in the
    result; `duplicates_refused`: second answers that came and did not count. `lost`: rows without an answer.
    """

    rows: int
    shards: int
    moved: int
    duplicates: int
    duplicates_refused: int
    lost: int
    exact: bool
    rows_equal: int
    accuracy: float | None
    killed: str
    killed_at_s: float | None
    makespan_s: float
    ideal_s: float
    bytes_moved: int
    artifact: str
    runtime: str
    devices: dict[str, int]
    """Shards that each device computed."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole demo."""

    lepta: str
    host: dict[str, Any]
    artifacts: tuple[ArtifactFigures, ...]
    swap: SwapFigures
    refused: RefusalFigures
    job: JobFigures
    simulated: tuple[str, ...]
    """Devices that pretend to have hardware which is not there."""
    wall_s: float = 0.0


class Promise(NamedTuple):
    """Something that Lepta guarantees, whether it was kept, and what was found."""

    text: str
    kept: bool
    found: str


def artifact_figures(run: Run) -> tuple[ArtifactFigures, ...]:
    """What a run made, beside the float model that it was given."""
    float_model = (run.report or {}).get("float") or {}
    return tuple(_figures(a, run.version, 4 * int(float_model.get("parameters", a.parameters))) for a in run.artifacts)


def swap_figures(samples: Sequence[Sample], swaps: Sequence[tuple[str, TimedSwap]], per_s: float) -> SwapFigures:
    """Sort a stream into windows by the devices' own swap records; `swaps` are (device, record)."""
    spans = during([record for _, record in swaps])
    quiet: list[Span] = []
    if spans and samples:
        ends = Span(min(s.at for s in samples), max(s.at for s in samples))
        quiet = controls(spans, ends)
    calm, busy = latencies(samples, quiet), latencies(samples, spans)
    failed = [sample for sample in samples if sample.error]
    return SwapFigures(
        requests=len(samples),
        failed=len(failed),
        per_s=per_s,
        requests_control=len(calm),
        requests_during=len(busy),
        p50_control_ms=percentile(calm, 0.50),
        p99_control_ms=percentile(calm, 0.99),
        p50_during_ms=percentile(busy, 0.50),
        p99_during_ms=percentile(busy, 0.99),
        control_windows=len(quiet),
        during_s=round(sum(span.end - span.start for span in spans), 3),
        devices=tuple(_device_swap(device, record) for device, record in swaps),
        errors=tuple(sorted({sample.error for sample in failed})[:5]),
    )


def refusal_figures(run: Run, swaps: Sequence[tuple[str, TimedSwap]], answered: Sequence[int]) -> RefusalFigures:
    """`swaps` are (device, record); `answered`: the version of each answer afterwards."""
    made = artifact_figures(run)
    return RefusalFigures(
        version=run.version,
        accuracy=min((a.accuracy_int8 for a in made if a.accuracy_int8 is not None), default=None),
        gate_passed=bool(made) and all(a.gate_passed for a in made),
        devices=tuple(_device_refusal(device, record) for device, record in swaps),
        answers={str(version): answered.count(version) for version in sorted(set(answered))},
    )


def job_figures(
    job: Job,
    *,
    ids: Sequence[int],
    answered: Sequence[bool],
    equal: Sequence[bool],
    killed: str,
    killed_at_s: float | None,
    ideal_s: float,
) -> JobFigures:
    """Per row of the result: its id, whether it holds an answer, and whether it equals the bare process's answer."""
    lost = job.rows - len(ids) + sum(not a for a in answered)
    return JobFigures(
        rows=job.rows,
        shards=job.shards,
        moved=job.moved,
        duplicates=len(ids) - len(set(ids)),
        duplicates_refused=job.duplicates_refused,
        lost=lost,
        exact=len(ids) == job.rows and all(answered) and all(equal),
        rows_equal=sum(equal),
        accuracy=(job.metrics or {}).get("accuracy"),
        killed=killed,
        killed_at_s=killed_at_s,
        makespan_s=job.makespan_s or 0.0,
        ideal_s=ideal_s,
        bytes_moved=job.bytes_moved,
        artifact=job.artifact,
        runtime=job.runtime,
        devices={name: share.shards for name, share in job.devices.items()},
    )


def promises(report: Report) -> list[Promise]:
    """What must hold; the demo ends with an error if one does not."""
    swap, job = report.swap, report.job
    passed = [a for a in report.artifacts if a.gate_passed]
    committed = [d for d in swap.devices if d.outcome == "committed"]
    wrong = job.rows - job.rows_equal
    return [
        Promise(
            "no request fails while a model is swapped", swap.failed == 0, f"{swap.failed} of {swap.requests} failed"
        ),
        Promise(
            "every device swaps in the new version",
            bool(swap.devices) and len(committed) == len(swap.devices),
            f"{len(committed)} of {len(swap.devices)} did",
        ),
        _refused_by_all(report.refused),
        Promise(
            "a job is exact though a device dies: no row lost, none twice, each equal to a bare run",
            job.exact and job.lost == 0 and job.duplicates == 0,
            f"{wrong} of {job.rows} rows differ, {job.lost} lost, {job.duplicates} twice",
        ),
        Promise(
            "what is deployed has passed its gate",
            bool(report.artifacts) and len(passed) == len(report.artifacts),
            f"{len(passed)} of {len(report.artifacts)} artifacts did",
        ),
    ]


def _refused_by_all(found: RefusalFigures) -> Promise:
    refused = [d for d in found.devices if d.outcome == "refused"]
    faithful = found.gate_passed and all((d.agreement or 0) >= _FAITHFUL for d in found.devices)
    before = str(found.version - 1)
    return Promise(
        "a version trained on wrong labels, though faithfully converted, is refused by every device",
        faithful and bool(refused) and len(refused) == len(found.devices) and set(found.answers) == {before},
        f"{len(refused)} of {len(found.devices)} refused it; version {', '.join(found.answers) or '-'} answers",
    )


def _figures(artifact: Artifact, version: int, bytes_before: int) -> ArtifactFigures:
    return ArtifactFigures(
        profile=artifact.profile,
        version=version,
        parameters=artifact.parameters,
        macs_before=artifact.macs_before,
        macs_after=artifact.macs,
        bytes_before=bytes_before,
        bytes=artifact.bytes,
        accuracy_float=artifact.accuracy_float,
        accuracy_int8=artifact.accuracy_int8,
        agreement=artifact.agreement,
        latency_ms=artifact.latency_ms,
        gate_passed=artifact.gate is not None and artifact.gate.passed,
    )


def _device_refusal(device: str, record: TimedSwap) -> DeviceRefusal:
    probe = record.probe
    return DeviceRefusal(
        device=device,
        outcome=record.outcome,
        reason=record.reason,
        agreement=probe.agreement if probe else None,
        accuracy=probe.accuracy if probe else None,
    )


def _device_swap(device: str, record: TimedSwap) -> DeviceSwap:
    return DeviceSwap(
        device=device,
        outcome=record.outcome,
        fetched_bytes=record.fetched_bytes,
        total_s=record.total_s,
        gap_ms=record.gap_ms,
        during_requests=record.during.requests,
        during_failed=record.during.failed,
    )
