"""The demo's batch job: one device is killed in the middle, and every answer is compared with a bare run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from agent.contract.golden import Array
from controller.client.follow import WorkFailed
from controller.client.rest import Client
from controller.demo.fleet import Fleet
from controller.demo.processes import Bare, Rate, cores, rate_of
from controller.demo.report import JobFigures, job_figures
from controller.demo.windows import ideal_s
from controller.errors import Internal
from controller.replies import Artifact, Job


@dataclass(frozen=True)
class JobSettings:
    """`kill_after`: share of the shards that are accepted before the kill."""

    shard_rows: int = 16
    kill_after: float = 0.15
    poll_s: float = 0.003
    rate_s: float = 0.4
    """How long the bare processes compute, each time their speed is measured."""
    patience_s: float = 60.0


class Ended(NamedTuple):
    job: Job
    killed_at_s: float | None
    """Seconds after the job's start; None where it ended first."""


def run_job(fleet: Fleet, model: str, batch: Path, victim: str, settings: JobSettings) -> JobFigures:
    """Score `batch` on the fleet, kill `victim` on the way, compare. Raises WorkFailed where the job fails."""
    client = fleet.client
    artifact = _artifact_of(client, model, victim)
    file = fleet.folder / "reference.tflite"
    client.get_file(artifact.digest, file)
    told = {"model": str(file), "runtimes": artifact.runtimes, "threads": artifact.threads, "input": str(batch)}
    workers = [name for name in fleet.agents if _serves(client, name, artifact.digest)]
    with ExitStack() as stack:
        bare = [stack.enter_context(Bare(told, fleet.folder / "bare.log")) for _ in range(min(len(workers), cores()))]
        rates = [_rates(bare, len(workers), settings)]
        digest = client.put_file(batch).digest
        ended = _with_a_kill(fleet, client.start_job(model, digest, shard_rows=settings.shard_rows), victim, settings)
        rates.append(_rates(bare, len(workers), settings))
        reference = fleet.folder / "reference.npz"
        bare[0].ask({"do": "score", "output": str(reference)})
    every, left = (_mean([pair[i] for pair in rates]) for i in range(2))
    result = fleet.folder / "result.npz"
    client.job_result(ended.job.id, result)
    ideal = ideal_s(ended.job.rows, every, left, ended.killed_at_s)
    return compare(ended, result, reference, victim if ended.killed_at_s is not None else "", ideal)


def compare(ended: Ended, result: Path, reference: Path, killed: str, ideal: float) -> JobFigures:
    """Row by row and bit by bit: the job's outputs against those of the bare process."""
    with np.load(result, allow_pickle=False) as found, np.load(reference, allow_pickle=False) as wanted:
        ids, answered = found["id"], found["device"] >= 0
        equal = answered.copy()
        for name in wanted.files:
            equal &= _equal_rows(found[f"output:{name}"], wanted[name][ids])
    return job_figures(
        ended.job,
        ids=ids.tolist(),
        answered=answered.tolist(),
        equal=equal.tolist(),
        killed=killed,
        killed_at_s=ended.killed_at_s,
        ideal_s=ideal,
    )


def _with_a_kill(fleet: Fleet, job: Job, victim: str, settings: JobSettings) -> Ended:
    """Follow the job; end `victim` by force once enough shards are accepted."""
    began = time.monotonic()
    killed_at: float | None = None
    while job.state in ("queued", "running"):
        if killed_at is None and job.accepted >= settings.kill_after * max(1, job.shards):
            killed_at = time.monotonic() - began
            fleet.agents[victim].kill()
        if time.monotonic() - began > settings.patience_s:
            raise Internal(
                f"job {job.id} took longer than {settings.patience_s:.0f} s: {job.accepted}/{job.shards} shards"
            )
        time.sleep(settings.poll_s)
        job = fleet.client.job(job.id)
    if job.state != "done":
        raise WorkFailed(f"job {job.id} {job.state}: {job.error or 'no reason was given'}")
    return Ended(job, killed_at)


def _rates(bare: Sequence[Bare], workers: int, settings: JobSettings) -> tuple[float, float]:
    """Rows per second of bare processes: as many as devices (at most one a core), and as many as after the kill."""
    every: Rate = rate_of(bare, settings.rate_s)
    after = min(len(bare), max(1, workers - 1))
    left = every if after == len(bare) else rate_of(bare[:after], settings.rate_s)
    return every.per_s, left.per_s


def _artifact_of(client: Client, model: str, device: str) -> Artifact:
    serving = next((m for m in client.device(device).models if m.model == model and m.state == "serving"), None)
    version = client.version(model, serving.version) if serving else None
    artifacts = version.artifacts if version else ()
    found = next((a for a in artifacts if serving is not None and a.digest == serving.artifact), None)
    if found is None:
        raise Internal(f"{device} does not serve {model}")
    return found


def _serves(client: Client, device: str, digest: str) -> bool:
    return any(m.artifact == digest and m.state == "serving" for m in client.device(device).models)


def _equal_rows(found: Array, wanted: Array) -> Array:
    same: Array = (found == wanted.astype(found.dtype)).reshape(len(found), -1).all(axis=1)
    return same


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
