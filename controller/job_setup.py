"""What a job begins with: who could compute for it, and its reducer; and what it goes on with after a restart."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from controller import job_data, job_plan, records, work
from controller.devices import Devices
from controller.errors import Busy, UserError
from controller.job_inputs.source import Source
from controller.job_plan import Server
from controller.job_prior import Prior
from controller.reducers.face import About, Reducer
from controller.reducers.registry import make
from controller.running_job import family
from controller.shards import Shard


def planned(
    devices: Devices,
    built: list[records.Artifact],
    data: Source,
    wanted: records.Job,
    policy: work.Policy,
    prior: Prior,
) -> tuple[job_plan.Plan, Reducer[Any]]:
    """What a job is pinned to, and its reducer. Raises Busy where too few devices serve its version now."""
    servers = servers_of(devices, wanted, built, prior)
    if not servers:
        where = f" for {wanted.profile}" if wanted.profile else ""
        raise Busy(
            f"no device serves {wanted.model} version {wanted.version}{where}", "lepta deploy, or lepta device ls"
        )
    plan = job_plan.plan(built, servers, data.rows, data.row_bytes, wanted, policy, prior.cuts)
    reducer = reducer_of(wanted, plan.artifact, data)
    fitting = sum(1 for server in servers if wanted.mixed or server.artifact == plan.artifact.digest)
    if fitting < reducer.replicas:
        raise Busy(
            f"{wanted.reduce} wants {reducer.replicas} devices for each row, and {fitting} serve the artifact",
            "ask for fewer replicas, or add devices: lepta device ls",
        )
    return plan, reducer


def servers_of(devices: Devices, wanted: records.Job, built: list[records.Artifact], prior: Prior) -> list[Server]:
    """Every device that could take part."""
    profiles = {artifact.digest: artifact.profile for artifact in built}
    found = []
    for known in devices.all():
        state = known.serving(wanted.model)
        if state is None or not known.online or known.record.drain or state.artifact not in profiles:
            continue
        if wanted.profile in (None, profiles[state.artifact]):
            row_ms = known.row_ms(state.artifact) or prior.row_ms.get((known.name, state.artifact), 0.0)
            found.append(Server(known.name, state.artifact, family(state.runtime), row_ms, known.stored))
    return found


def reducer_of(job: records.Job, artifact: records.Artifact, data: Source) -> Reducer[Any]:
    """Raises UserError where the reducer does not suit the job."""
    about = About(data.rows, job_data.outputs_of(artifact), data.labels, data.ids)
    reducer = make(job.reduce, about, job.settings)
    if job.format == "parquet" and not reducer.finish(reducer.empty()).per_row:
        raise UserError(f"{job.reduce} gives no rows, which Parquet is for", "write to an .npz file")
    return reducer


def rules_of(
    shards: Sequence[records.Shard],
    policy: work.Policy,
    apart: int,
    near: Callable[[Sequence[Shard]], Mapping[int, Collection[str]]] | None = None,
) -> work.Job:
    """The rules of a job after a restart: what was accepted stays so, the rest begins with higher attempts.

    `near`: who is likely to hold the rows of which shards.
    """
    accepted = [s for s in shards if s.state == "accepted"]
    open_ = [Shard(s.number, s.first, s.last) for s in shards if s.state in ("pending", "leased")]
    rules = work.Job(
        open_,
        policy,
        {s.number: s.attempt for s in shards},
        apart=apart,
        devices=shares_of(accepted),
        accepted_by={s.number: s.device for s in accepted},
        near=near(open_) if near else None,
    )
    rules.quarantined = {s.number: s.reason for s in shards if s.state == "quarantined"}
    return rules


def shares_of(accepted: Sequence[records.Shard]) -> dict[str, work.DeviceShare]:
    """What each device did before a restart."""
    shares: dict[str, work.DeviceShare] = {}
    for s in accepted:
        share = shares.get(s.device, work.DeviceShare(0.0, ready=False))
        rows, busy_s = share.rows + s.last - s.first, share.busy_s + s.busy_s
        shares[s.device] = work.DeviceShare(
            busy_s / rows, ready=False, shards=share.shards + 1, rows=rows, busy_s=busy_s
        )
    return shares
