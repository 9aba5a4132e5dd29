"""Batch jobs as the loop sees them: the pure rules of `work` over real devices, with every lease and result on disk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from agent.contract.messages import Result
from controller import job_data, job_leases, records, work, writes
from controller.background import Background
from controller.catalog import Catalog
from controller.devices import Devices
from controller.errors import Busy, NotFound
from controller.job_inputs.preparing import Inputs
from controller.job_inputs.source import Source
from controller.job_leases import shard_record
from controller.job_prior import Prior
from controller.job_reduction import Reduction
from controller.job_results import Results
from controller.job_setup import planned, reducer_of, rules_of
from controller.job_shipping import Shipping
from controller.known import Known
from controller.outbox import Outbox
from controller.recorder import Recorder
from controller.reducers.face import Reducer
from controller.running_job import RunningJob
from controller.shards import replicated, split
from controller.sharing import fractions
from controller.tick import Tick
from controller.watching import Watchers

log = logging.getLogger("lepta.jobs")
# So many accepted shards are worth a trip to a thread.
_WORTH_IT = 16
# A controller that is killed forgets what was counted in so many seconds.
_SAVE_S = 1.0


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
        scratch_bytes: int,
        watchers: int,
        new_id: Callable[[str], str],
        deliver: Callable[[Reduced | Broken], None],
    ) -> None:
        self._folder = folder
        self._catalog = catalog
        self._devices = devices
        self._recorder = recorder
        self._policy = policy
        self._most_open = most_open
        self._stall_s = stall_s
        self._scratch_bytes = scratch_bytes
        self.watchers = Watchers(watchers)
        self.inputs = Inputs(folder / "inputs", scratch_bytes)
        self._new_id = new_id
        self._deliver = deliver
        self._active: dict[str, RunningJob] = {}
        self._background = Background()
        self._shipping = Shipping(catalog, outbox, self._background, lambda job, why: deliver(Broken(job, why)))
        devices.on_lost.append(self.move_away)

    @property
    def busy(self) -> bool:
        return bool(self._active)

    def move_away(self, tick: Tick, device: str) -> None:
        """What waits at the device, or is computed there, is computed elsewhere. May run twice."""
        for active in list(self._active.values()):
            active.feasible.discard(device)
            for action in active.rules.handle(work.DeviceGone(device), tick.now):
                self._act(tick, active, action, None)

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
        self, tick: Tick, built: list[records.Artifact], data: Source, wanted: records.Job, prior: Prior
    ) -> records.Job:
        """Begin a job on the devices that serve its version now; raises Busy if none does."""
        if len(self._active) >= self._most_open:
            raise Busy(f"{len(self._active)} jobs are running", "wait for one to end, or cancel one: lepta job ls")
        plan, reducer = planned(self._devices, built, data, wanted, self._policy, prior)
        shards = replicated(split(data.rows, plan.shard_rows), reducer.replicas)
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
        apart = len(shards) // reducer.replicas if reducer.replicas > 1 else 0
        near = {} if job.canaries else prior.near(shards, job.shard_rows)
        self._take_up(tick, job, built, work.Job(shards, self._policy, apart=apart, near=near), data, reducer, prior)
        tick.save(writes.put(job), writes.put(*(shard_record(job.id, s) for s in shards)))
        self._note(tick, "job", job=job.id, rows=data.rows, shards=len(shards), artifact=job.artifact)
        return job

    def _take_up(
        self,
        tick: Tick,
        job: records.Job,
        built: list[records.Artifact],
        rules: work.Job,
        data: Source,
        reducer: Reducer[Any],
        prior: Prior,
    ) -> RunningJob:
        outputs = {a.digest: job_data.outputs_of(a) for a in built if job.mixed or a.digest == job.artifact}
        results = Results(self._folder, job.id)
        scratch = self._folder / f"{job.id}.scratch"
        reduction = Reduction(job, reducer, results, scratch, self._scratch_bytes)
        active = RunningJob(job, rules, data, outputs, results, reduction, reducer.replicas, tick.now, prior=prior)
        self._active[job.id] = active
        return active

    def pause(self, tick: Tick, job_id: str, *, paused: bool) -> records.Job:
        """Hand out nothing more, or go on. What is handed out already is computed, and counts."""
        active = self._required(job_id)
        active.record = msgspec.structs.replace(active.record, state="paused" if paused else "running")
        job = active.counted()
        tick.save(writes.put(job))
        self._note(tick, job.state, job=job_id)
        return job

    def cancel(self, tick: Tick, job_id: str) -> records.Job:
        return self._end(tick, self._required(job_id), state="cancelled", error="cancelled by its user")

    def clear(self) -> None:
        """Forget what is in memory: it is read anew from the store."""
        for active in list(self._active.values()):
            active.results.close()
            active.data.close()
            self._forget(active)

    def give_up(self, tick: Tick, job: records.Job, error: str) -> None:
        tick.save(writes.put(msgspec.structs.replace(job, state="failed", error=error, finished_at=tick.wall)))

    def restore(
        self,
        tick: Tick,
        job: records.Job,
        built: list[records.Artifact],
        shards: list[records.Shard],
        data: Source,
        prior: Prior,
    ) -> None:
        """Take a job up again after a restart: accepted shards stay accepted, the others begin with higher attempts."""
        pinned = next((a for a in built if a.digest == job.artifact), built[0])
        reducer = reducer_of(job, pinned, data)
        apart = job.shards // reducer.replicas if reducer.replicas > 1 else 0
        accepted = [s for s in shards if s.state == "accepted"]
        near = None if job.canaries else partial(prior.near, shard_rows=job.shard_rows)
        active = self._take_up(tick, job, built, rules_of(shards, self._policy, apart, near), data, reducer, prior)
        active.go_on(accepted)
        numbers = [s.number for s in accepted]
        self._note(tick, "restore", job=job.id, accepted=numbers, quarantined=list(active.rules.quarantined))
        if active.rules.finished:
            self._finish(tick, active)

    # -- what devices say

    def result(self, tick: Tick, device: str, result: Result) -> None:
        active = self._active.get(result.job)
        if active is None:
            return
        self._shipping.answered(active, device, result)
        wrong = active.wrong(result)
        result = result if wrong else active.in_reals(result)
        active.device_s += result.service_ms / 1000
        event = work.Answered(
            device,
            result.shard,
            result.attempt,
            result.service_ms / 1000,
            error=wrong,
            user_fault=result.fault is not None and result.fault.who == "user",
            turned_down=result.turned_down,
        )
        for action in active.rules.handle(event, tick.now):
            self._act(tick, active, action, result)

    def tick(self, tick: Tick) -> None:
        """After all events of a tick: expire leases, note who came and went, hand out what can be handed out."""
        for active in list(self._active.values()):
            self._note_devices(tick, active)
            for action in active.rules.handle(work.Ticked(), tick.now):
                self._act(tick, active, action, None)
            tick.then(partial(self.watchers.changed, active.record.id))
            if tick.now - active.saved_at >= _SAVE_S:
                active.saved_at = tick.now
                tick.save(writes.put(active.counted()))
        open_ = [a for a in self._active.values() if not a.rules.finished and not a.paused]
        parts = fractions(a.claim() for a in open_)
        for active in open_:
            for action in active.rules.assign(tick.now, parts[active.record.id]):
                self._act(tick, active, action, None)
            self._catch_up(tick, active)

    def reduced(self, tick: Tick, reduced: Reduced) -> None:
        active = self._active.get(reduced.job)
        if active is None:
            return
        computed = active.computed_rows()
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

    def _required(self, job_id: str) -> RunningJob:
        active = self._active.get(job_id)
        if active is None:
            raise NotFound(f"no running job is called {job_id!r}", "lepta job ls")
        return active

    def _note_devices(self, tick: Tick, active: RunningJob) -> None:
        for known in self._devices.all():
            artifact = active.feasible_artifact(known)
            if artifact is not None and known.name not in active.feasible:
                active.feasible.add(known.name)
                active.rules.handle(work.DeviceReady(known.name, active.row_s(known, artifact)), tick.now)
            elif artifact is None and known.name in active.feasible:
                active.feasible.discard(known.name)
                for action in active.rules.handle(_left(active, known), tick.now):
                    self._act(tick, active, action, None)
        self._watch_for_stall(tick, active)

    def _watch_for_stall(self, tick: Tick, active: RunningJob) -> None:
        if active.feasible or active.rules.finished or active.paused:
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
                more = {"ttl_s": ttl_s, "speculative": speculative}
                self._note(tick, "lease", job=job, shard=shard.number, attempt=attempt, device=device, **more)
                self._lease(tick, active, action)
            case work.Accept(shard, attempt, device):
                assert result is not None
                self._accept(tick, active, action, result)
                self._note(tick, "accept", job=job, shard=shard.number, attempt=attempt, device=device)
            case work.Refuse(number, attempt, device, reason):
                self._note(tick, "refuse", job=job, shard=number, attempt=attempt, device=device, reason=reason)
            case work.Quarantine(shard, reason):
                log.warning("job %s: shard %d is quarantined: %s", job, shard.number, reason)
                tick.save(writes.put(shard_record(job, shard, state="quarantined", reason=reason)))
                self._note(tick, "quarantine", job=job, shard=shard.number, reason=reason)
            case work.Finish():
                self._finish(tick, active)

    def _lease(self, tick: Tick, active: RunningJob, lease: work.Lease) -> None:
        known = self._devices.require(lease.device)
        artifact = active.feasible_artifact(known) or active.record.artifact
        told = {"state": "leased", "attempt": lease.attempt, "device": lease.device}
        tick.save(writes.put(shard_record(active.record.id, lease.shard, **told)))
        tick.then(partial(self._shipping.send, active, lease, artifact, known))

    def _accept(self, tick: Tick, active: RunningJob, accept: work.Accept, result: Result) -> None:
        tick.save(writes.put(job_leases.kept(active, accept, result)))
        tick.flush(active.results.file)

    def _catch_up(self, tick: Tick, active: RunningJob) -> None:
        """Reduce what came meanwhile, once it is on the disk, so that little is left to do at the end."""
        count = len(active.results)
        if active.reducing or count < active.reduction.taken + _WORTH_IT:
            return
        active.reducing = True

        async def reduce() -> None:
            try:
                await asyncio.to_thread(active.reduction.catch_up, count)
            finally:
                active.reducing = False

        broken = partial(Broken, active.record.id)
        tick.then(lambda: self._background.start(reduce(), lambda error: self._deliver(broken(error))))

    def _finish(self, tick: Tick, active: RunningJob) -> None:
        active.record = msgspec.structs.replace(active.record, makespan_s=tick.now - active.began)
        broken = partial(Broken, active.record.id)
        tick.then(lambda: self._background.start(self._reduce(active), lambda error: self._deliver(broken(error))))

    def _end(self, tick: Tick, active: RunningJob, *, state: str, error: str | None) -> records.Job:
        job = msgspec.structs.replace(active.counted(), state=state, error=error, finished_at=tick.wall)
        tick.save(writes.put(job))
        self._forget(active)
        tick.then(lambda: self._background.start(self._clean(active), log.error))
        tick.then(partial(self.watchers.changed, job.id))
        log.info("job %s of %s: %s", job.id, job.model, state)
        bytes_ = {"moved": job.bytes_moved, "cached": job.bytes_cached, "packed": job.bytes_packed}
        self._note(tick, "job-end", job=job.id, state=state, accepted=job.accepted, lost=job.lost, **bytes_)
        return job

    def _note(self, tick: Tick, event: str, **values: object) -> None:
        """Into the history, once it is saved: what stands there has happened, whatever dies next."""
        tick.then(partial(self._recorder.record, tick.now, event, **values))

    def _forget(self, active: RunningJob) -> None:
        active.ended = True
        self._shipping.ended(active.record.id)
        del self._active[active.record.id]

    def sent(self, device: str, digest: str, size: int, wire: int) -> None:
        """`size` bytes of a blob went to a device as `wire` bytes: they are counted for the job that sends it."""
        self._shipping.left(self._active, device, digest, size, wire)

    async def _reduce(self, active: RunningJob) -> None:
        path, reduced = await asyncio.to_thread(active.reduction.write, active.record.format, active.ranges())
        file = await self._catalog.put_file(path, path.stat().st_size)
        self._deliver(Reduced(active.record.id, file.digest, reduced.metrics))

    async def _clean(self, active: RunningJob) -> None:
        active.results.remove()
        active.data.close()
        await asyncio.to_thread(active.reduction.remove)
        await self.inputs.forget({other.data.folder for other in self._active.values()})


def _first(reasons: dict[int, str]) -> str:
    return next(iter(reasons.values()), "")


def _left(active: RunningJob, known: Known) -> work.Event:
    """A device that is only cordoned computes what it holds, unless that is moved away; from others it is taken."""
    closed = active.served_artifact(known) is not None
    return work.DeviceClosed(known.name) if closed else work.DeviceGone(known.name)
