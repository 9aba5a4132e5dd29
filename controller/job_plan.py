"""PURE: what a job is pinned to, and how it is cut, given who serves the model now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from controller import job_data, shards
from controller.errors import UserError
from controller.records import Artifact, Job
from controller.work import Policy


@dataclass(frozen=True)
class Server:
    """A device that serves one of the version's artifacts. `runtime`: family; `row_ms`: measured, 0 if unknown."""

    device: str
    artifact: str
    runtime: str
    row_ms: float
    stored: bool = False
    """Can it answer as its model stores numbers?"""


@dataclass(frozen=True)
class Plan:
    artifact: Artifact
    runtime: str
    shard_rows: int


def plan(
    built: Iterable[Artifact],
    servers: Sequence[Server],
    rows: int,
    row_bytes: int,
    wanted: Job,
    policy: Policy,
    cuts: Collection[int] = (),
) -> Plan:
    """Pin the job to the artifact and runtime family that most devices offer. `servers` must not be empty.

    `wanted.shard_rows`: what the user asked for, 0 for what suits the measured speed. `cuts`: rows of a shard of
    earlier jobs over the same input, whose blobs devices may still hold: one of them is taken where it is not far from
    what suits. Raises UserError where the canaries leave no room for a row.
    """
    artifacts = {artifact.digest: artifact for artifact in built}
    pinned = artifacts[_most_common(server.artifact for server in servers)]
    fitting = [server for server in servers if server.artifact == pinned.digest]
    stored = all(server.stored for server in (servers if wanted.mixed else fitting))
    may = artifacts.values() if wanted.mixed else (pinned,)
    most = min(
        job_data.most_rows(row_bytes, job_data.outputs_of(artifact), policy.shard_bytes, stored=stored)
        for artifact in may
    )
    if wanted.canaries >= most:
        raise UserError(f"{wanted.canaries} canaries are too many, {most} rows fit a shard", "ask for fewer")
    most -= wanted.canaries
    guess = float(pinned.report.get("latency_ms") or 1.0)
    speeds = [(server.row_ms or guess) / 1000 for server in fitting]
    size = wanted.shard_rows
    if not size:
        size = shards.shard_size(rows, speeds, most, policy.target_s, policy.longest_s)
        size = shards.settled(size, [] if wanted.canaries else cuts, most)
    return Plan(pinned, _most_common(server.runtime for server in fitting), min(size, most))


def _most_common(values: Iterable[str]) -> str:
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], value))
