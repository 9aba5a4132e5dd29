"""Batch jobs as the loop sees them: the pure rules of `work` over real devices, with every lease and result on disk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from agent.contract import topics
from agent.contract.messages import MAX_INLINE, Result, Work, encode_tensors
from controller import job_data, job_plan, records, work, writes
from controller.background import Background
from controller.catalog import Catalog
from controller.devices import Devices
from controller.errors import Busy, NotFound
from controller.job_data import JobInput, ShardResult
from controller.job_plan import Server
from controller.job_results import Results
from controller.outbox import Outbox
from controller.recorder import Recorder
from controller.running_job import RunningJob, family
from controller.shards import Shard, split
from controller.tick import Tick

log = logging.getLogger("lepta.jobs")


class Reduced(msgspec.Struct, frozen=True):
    """A job's results are joined and in the catalog."""

    job: str
    result: str
    metrics: dict[str, float]


class Broken(msgspec.Struct, frozen=True):
    job: str
    error: str


class Jobs:
    """Owned by the loop."""

    def __init__(
        self,
        folder: Path,
        catalog: Catalog,
        devices: Devices,
        outbox: Outbox,
        recorder: Recorder,
        *,
        policy: work.Policy,
        most_open: int,
        stall_s: float,
        new_id: Callable[[str], str],
        deliver: Callable[[Reduced | Broken], None],
    ) -> None:
        self._folder = folder
        self._catalog = catalog
        self._devices = devices
        self._outbox = outbox
        self._recorder = recorder
        self._policy = policy
        self._most_open = most_open
        self._stall_s = stall_s
        self._new_id = new_id
        self._deliver = deliver
        self._active: dict[str, RunningJob] = {}
        self._background = Background()
        devices.on_lost.append(self._lost)

    @property
    def busy(self) -> bool:
        return bool(self._active)

    def outstanding(self, device: str) -> int:
        shares = (active.rules.devices.get(device) for active in self._active.values())
        return sum(share.outstanding for share in shares if share is not None)

    def shard_ms(self, device: str) -> float:
        """Computing time of a shard that is there now, the longest where several jobs have some; 0 without."""
        shares = (active.rules.devices.get(device) for active in self._active.values())
        held = [share for share in shares if share is not None and share.outstanding]
        return max((1000 * share.row_s * share.waiting_rows / share.outstanding for share in held), default=0.0)

    def progress(self, job: records.Job) -> records.Job:
        """The job with the counters that are not in the store yet."""
        active = self._active.get(job.id)
        return active.counted() if active is not None else job

    # -- commands

    def start(
        self, tick: Tick, version: records.Version, built: list[records.Artifact], data: JobInput, wanted: records.Job
    ) -> records.Job:
        """Begin a job on the devices that serve `version` now; raises Busy if none does."""
        if len(self._active) >= self._most_open:
            raise Busy(f"{len(self._active)} jobs are running", "wait for one to end, or cancel one: lepta job ls")
        servers = self._servers(wanted, built)
        if not servers:
            what = f"{version.model} version {version.version}"
            where = f" for {wanted.profile}" if wanted.profile else ""
            raise Busy(f"no device serves {what}{where}", "lepta deploy, or lepta device ls")
        row_bytes = job_data.row_bytes(data)
        plan = job_plan.plan(built, servers, data.rows, row_bytes, wanted.shard_rows, self._policy)
        shards = split(data.rows, plan.shard_rows)
        job = msgspec.structs.replace(
            wanted,
            id=self._new_id("job"),
            state="running",
            profile=plan.artifact.profile,
            artifact=plan.artifact.digest,
            runtime=plan.runtime,
            rows=data.rows,
            shard_rows=plan.shard_rows,
            shards=len(shards),
            created_at=tick.wall,
            started_at=tick.wall,
        )
        digests = frozenset(a.digest for a in built) if job.mixed else frozenset({plan.artifact.digest})
        active = RunningJob(job, work.Job(shards, self._policy), data, digests, Results(self._folder, job.id), tick.now)
        self._active[job.id] = active
        tick.save(writes.put(job), writes.put(*(_shard(job.id, s) for s in shards)))
        self._recorder.record(tick.now, "job", id=job.id, rows=data.rows, shards=len(shards), artifact=job.artifact)
        return job

    def cancel(self, tick: Tick, job_id: str) -> records.Job:
        active = self._active.get(job_id)
        if active is None:
            raise NotFound(f"no running job is called {job_id!r}", "lepta job ls")
        return self._end(tick, active, state="cancelled", error="cancelled by its user")

    def clear(self) -> None:
        """Forget what is in memory: it is read anew from the store."""
        for active in self._active.values():
            active.results.close()
        self._active.clear()

    def give_up(self, tick: Tick, job: records.Job, error: str) -> None:
        tick.save(writes.put(msgspec.structs.replace(job, state="failed", error=error, finished_at=tick.wall)))

    def restore(
        self,
        tick: Tick,
        job: records.Job,
        built: list[records.Artifact],
        shards: list[records.Shard],
        data: JobInput,
    ) -> None:
        """Take a job up again after a restart: accepted shards stay accepted, the others begin with higher attempts."""
        open_ = [Shard(s.number, s.first, s.last) for s in shards if s.state in ("pending", "leased")]
        attempts = {s.number: s.attempt for s in shards}
        digests = frozenset(a.digest for a in built) if job.mixed else frozenset({job.artifact})
        active = RunningJob(
            job, work.Job(open_, self._policy, attempts), data, digests, Results(self._folder, job.id), tick.now
        )
        for s in shards:
            if s.state == "accepted":
                kept = ShardResult(s.first, s.last, s.device, s.artifact, s.runtime, ())
                active.results.remember(kept, s.offset, s.length)
        active.rules.quarantined = {s.number: s.reason for s in shards if s.state == "quarantined"}
        self._active[job.id] = active
        if active.rules.finished:
            self._finish(tick, active)

    # -- what devices say

    def result(self, tick: Tick, device: str, result: Result) -> None:
        active = self._active.get(result.job)
        if active is None:
            return
        moved = sum(len(t.data) for t in result.outputs)
        active.bytes_moved += moved
        event = work.Answered(
            device,
            result.shard,
            result.attempt,
            result.service_ms / 1000,
            error=active.wrong(result),
            user_fault=result.fault is not None and result.fault.who == "user",
        )
        for action in active.rules.handle(event, tick.now):
            self._act(tick, active, action, result)

    def tick(self, tick: Tick) -> None:
        """After all events of a tick: expire leases, note who came and went, hand out what can be handed out."""
        for active in list(self._active.values()):
            self._note_devices(tick, active)
            for action in active.rules.handle(work.Ticked(), tick.now):
                self._act(tick, active, action, None)
            if active.record.id in self._active and not active.rules.finished:
                for action in active.rules.assign(tick.now):
                    self._act(tick, active, action, None)

    def reduced(self, tick: Tick, reduced: Reduced) -> None:
        active = self._active.get(reduced.job)
        if active is None:
            return
        computed = int(reduced.metrics["rows_computed"])
        quarantined = active.quarantined_rows()
        lost = active.record.rows - computed - quarantined
        error = f"{quarantined} rows are quarantined: {_first(active.rules.quarantined)}" if quarantined else None
        active.record = msgspec.structs.replace(
            active.record, result=reduced.result, metrics=reduced.metrics, lost=lost
        )
        state = "done" if computed and not lost else "failed"
        self._end(tick, active, state=state, error=error)

    def broken(self, tick: Tick, broken: Broken) -> None:
        active = self._active.get(broken.job)
        if active is not None:
            self._end(tick, active, state="failed", error=broken.error)

    # -- deciding

    def _lost(self, tick: Tick, device: str) -> None:
        for active in self._active.values():
            if device in active.feasible:
                active.feasible.discard(device)
                active.rules.handle(work.DeviceGone(device), tick.now)

    def _note_devices(self, tick: Tick, active: RunningJob) -> None:
        for known in self._devices.all():
            artifact = active.feasible_artifact(known)
            if artifact is not None and known.name not in active.feasible:
                active.feasible.add(known.name)
                row_s = known.row_ms(artifact) / 1000 or 0.001
                active.rules.handle(work.DeviceReady(known.name, row_s), tick.now)
            elif artifact is None and known.name in active.feasible:
                active.feasible.discard(known.name)
                for action in active.rules.handle(work.DeviceGone(known.name), tick.now):
                    self._act(tick, active, action, None)
        self._watch_for_stall(tick, active)

    def _watch_for_stall(self, tick: Tick, active: RunningJob) -> None:
        if active.feasible or active.rules.finished:
            active.without_device_since = None
        elif active.without_device_since is None:
            active.without_device_since = tick.now
        elif tick.now - active.without_device_since > self._stall_s:
            error = f"no device has served artifact {active.record.artifact[:12]} for {self._stall_s:.0f} s"
            self._end(tick, active, state="failed", error=error)

    def _act(self, tick: Tick, active: RunningJob, action: work.Action, result: Result | None) -> None:
        job = active.record.id
        match action:
            case work.Lease(device, shard, attempt, ttl_s, speculative):
                self._lease(tick, active, action)
                self._recorder.record(tick.now, "lease", job=job, shard=shard.number, attempt=attempt, device=device,
                                      ttl_s=ttl_s, speculative=speculative)  # fmt: skip
            case work.Accept(shard, attempt, device):
                assert result is not None
                self._accept(tick, active, action, result)
                self._recorder.record(tick.now, "accept", job=job, shard=shard.number, attempt=attempt, device=device)
            case work.Refuse(number, attempt, device, reason):
                self._recorder.record(
                    tick.now, "refuse", job=job, shard=number, attempt=attempt, device=device, reason=reason
                )
            case work.Quarantine(shard, reason):
                log.warning("job %s: shard %d is quarantined: %s", job, shard.number, reason)
                tick.save(writes.put(_shard(job, shard, state="quarantined", reason=reason)))
                self._recorder.record(tick.now, "quarantine", job=job, shard=shard.number, reason=reason)
            case work.Finish():
                self._finish(tick, active)

    def _lease(self, tick: Tick, active: RunningJob, lease: work.Lease) -> None:
        known = self._devices.require(lease.device)
        artifact = active.feasible_artifact(known) or active.record.artifact
        tensors = job_data.tensors_of(active.data, lease.shard.first, lease.shard.last)
        size = sum(len(t.data) for t in tensors)
        active.bytes_moved += size
        common: dict[str, Any] = {
            "job": active.record.id,
            "shard": lease.shard.number,
            "attempt": lease.attempt,
            "ttl_ms": lease.ttl_s * 1000,
            "model": active.record.model,
            "artifact": artifact,
            "runtime": "" if active.record.mixed else active.record.runtime,
        }
        if size <= MAX_INLINE:
            message = Work(**common, inputs=tensors)
        else:
            message = Work(**common, blob=self._catalog.keep(encode_tensors(tensors)))
        tick.save(
            writes.put(
                _shard(active.record.id, lease.shard, state="leased", attempt=lease.attempt, device=lease.device)
            )
        )
        topic = topics.agent(lease.device, "work")
        tick.then(lambda: self._outbox.send(topic, message))

    def _accept(self, tick: Tick, active: RunningJob, accept: work.Accept, result: Result) -> None:
        shard = accept.shard
        offset, length = active.results.add(
            ShardResult(shard.first, shard.last, accept.device, result.artifact, result.runtime, result.outputs)
        )
        tick.flush(active.results.file)
        tick.save(
            writes.put(
                _shard(
                    active.record.id,
                    shard,
                    state="accepted",
                    attempt=accept.attempt,
                    device=accept.device,
                    artifact=result.artifact,
                    runtime=result.runtime,
                    busy_s=result.service_ms / 1000,
                    result=f"jobs/{active.record.id}.results",
                    offset=offset,
                    length=length,
                )
            )
        )

    def _finish(self, tick: Tick, active: RunningJob) -> None:
        active.record = msgspec.structs.replace(active.record, makespan_s=tick.now - active.began)
        broken = partial(Broken, active.record.id)
        tick.then(lambda: self._background.start(self._reduce(active), lambda error: self._deliver(broken(error))))

    def _end(self, tick: Tick, active: RunningJob, *, state: str, error: str | None) -> records.Job:
        job = msgspec.structs.replace(active.counted(), state=state, error=error, finished_at=tick.wall)
        tick.save(writes.put(job))
        del self._active[job.id]
        tick.then(active.results.remove)
        log.info("job %s of %s: %s", job.id, job.model, state)
        self._recorder.record(tick.now, "job-end", id=job.id, state=state, accepted=job.accepted, lost=job.lost)
        return job

    def _servers(self, wanted: records.Job, built: list[records.Artifact]) -> list[Server]:
        """Every device that could take part."""
        profiles = {artifact.digest: artifact.profile for artifact in built}
        found = []
        for known in self._devices.all():
            state = known.serving(wanted.model)
            if state is None or not known.online or known.record.drain or state.artifact not in profiles:
                continue
            if wanted.profile in (None, profiles[state.artifact]):
                found.append(Server(known.name, state.artifact, family(state.runtime), known.row_ms(state.artifact)))
        return found

    async def _reduce(self, active: RunningJob) -> None:
        content, metrics = await asyncio.to_thread(job_data.reduce_scores, active.results.read(), active.data)
        file = await self._catalog.put_bytes(content)
        self._deliver(Reduced(active.record.id, file.digest, metrics))


def _shard(job: str, shard: Shard, **fields: Any) -> records.Shard:
    return records.Shard(job=job, number=shard.number, first=shard.first, last=shard.last, **fields)


def _first(reasons: dict[int, str]) -> str:
    return next(iter(reasons.values()), "")
