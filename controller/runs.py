"""Optimizer runs as the loop sees them: queued, followed, and what they built turned into signed artifacts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from controller import reads, records, writes
from controller.artifacts import Signer
from controller.background import Background
from controller.errors import Conflict, LeptaError, NotFound
from controller.releases import Releases
from controller.run_inputs import RunInputs
from controller.settings import Limits
from controller.store import Store
from controller.terms import Terms
from controller.tick import Tick
from controller.watching import Watchers

log = logging.getLogger("lepta.runs")


class Optimizer(Protocol):
    """What runs need of the optimizer's process."""

    def submit(self, run_id: str, run: dict[str, Any], out: Path) -> None: ...
    def cancel(self, run_id: str) -> None: ...


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a user asks of a run; the fields are those of the record."""

    profiles: tuple[str, ...]
    strict: bool = False
    deploy: bool = False
    recipe: str = ""
    compare: bool | None = None
    trust: bool = False
    terms: Terms = Terms()


class Built(msgspec.Struct, frozen=True):
    """A run's artifacts are in the catalog and signed."""

    run: str
    artifacts: tuple[records.Artifact, ...]
    report: dict[str, Any]


class Failed(msgspec.Struct, frozen=True):
    run: str
    error: str
    who: str


class Runs:
    """Owned by the loop."""

    def __init__(
        self,
        inputs: RunInputs,
        store: Store,
        signer: Signer,
        optimizer: Optimizer,
        releases: Releases,
        *,
        limits: Limits,
        new_id: Callable[[str], str],
        deliver: Callable[[Built | Failed], None],
    ) -> None:
        """`deliver` puts an event into the loop's inbox."""
        self._inputs = inputs
        self._store = store
        self._signer = signer
        self._optimizer = optimizer
        self._releases = releases
        self._most_attempts = limits.run_attempts
        self._new_id = new_id
        self._deliver = deliver
        self._open: dict[str, records.Run] = {}
        # As they were, until their end is saved.
        self._ending: dict[str, records.Run] = {}
        self._background = Background()
        self.watchers = Watchers(limits.watchers)
        """Of runs, by their ids."""

    def restore(self, tick: Tick, unfinished: Iterable[records.Run]) -> None:
        """Runs that an end of the controller interrupted begin again: a run can go twice, and what its passes made is
        remembered. One that was at work each time the controller was killed is not tried for ever."""
        self._ending.clear()
        for run in unfinished:
            if run.id in self._open:
                continue
            self._open[run.id] = run
            if run.state == "running" and run.attempts >= self._most_attempts:
                why = (
                    f"the controller was killed {run.attempts} times while this run was at work; it is not tried again"
                )
                self._end(tick, run, state="failed", error=why, who="us")
            else:
                self._begin(tick, _waiting(run))

    def pause(self, tick: Tick) -> None:
        """The controller stops on purpose: what goes again afterwards is not to blame for it."""
        for run in self._open.values():
            if run.state == "running":
                tick.save(writes.put(msgspec.structs.replace(_waiting(run), attempts=run.attempts - 1)))

    def progress(self, run: records.Run) -> records.Run:
        """The run with the progress that is not in the store yet."""
        return self._open.get(run.id) or self._ending.get(run.id, run)

    def is_open(self, run_id: str) -> bool:
        return run_id in self._open

    def open_of(self, model: str) -> frozenset[str]:
        """Runs of a model that are queued or at work."""
        return frozenset(run.id for run in self._open.values() if run.model == model)

    def queue(self, tick: Tick, version: records.Version, wanted: Wanted) -> records.Run:
        run = records.Run(
            id=self._new_id("run"),
            model=version.model,
            version=version.version,
            created_at=tick.wall,
            **{field: getattr(wanted, field) for field in wanted.__struct_fields__},
        )
        tick.save(writes.put(run))
        self._begin(tick, run)
        return run

    def out(self, run_id: str) -> Path:
        """The folder that the optimizer made for a run that is known."""
        return self._inputs.out(run_id)

    def cancel(self, tick: Tick, run_id: str) -> records.Run:
        run = self._open.get(run_id)
        if run is None:
            raise NotFound(f"no unfinished run is called {run_id!r}", "lepta run ls")
        if run.step == "sign":
            raise Conflict(f"run {run_id} has just been built", "abort its rollout instead")
        tick.then(lambda: self._optimizer.cancel(run_id))
        return self._end(tick, run, state="cancelled", error="cancelled by its user", who="user")

    def begun(self, tick: Tick, run_id: str) -> None:
        """The optimizer is about to begin. It is saved first: should that be the end of us, the attempt counts."""
        run = self._open.get(run_id)
        if run is not None:
            started = run.started_at or tick.wall
            run = msgspec.structs.replace(run, state="running", attempts=run.attempts + 1, started_at=started)
            self._open[run_id] = run
            tick.save(writes.put(run))
            tick.then(lambda: self.watchers.changed(run_id))

    def event(self, tick: Tick, run_id: str, event: Mapping[str, Any]) -> None:
        """What the optimizer told: progress, done with a report, failed with an error."""
        run = self._open.get(run_id)
        if run is None:
            return
        match event["event"]:
            case "progress":
                self._progress(tick, run, event)
            case "done":
                self._open[run_id] = msgspec.structs.replace(run, step="sign", fraction=1.0)
                tick.then(lambda: self._beside(run, self._sign(run, event["report"])))
            case "failed":
                self._end(tick, run, state="failed", error=event["error"], who=event.get("who", "us"))

    def built(self, tick: Tick, built: Built) -> None:
        """Artifacts are ready: save them, and if the run was asked to, release and roll out."""
        run = self._open.get(built.run)
        if run is None:
            return
        tick.save(*(writes.put(msgspec.structs.replace(a, run=run.id)) for a in built.artifacts))
        rejected = tuple(built.report.get("rejected", ()))
        run = msgspec.structs.replace(run, report=built.report, rejected=rejected)
        if not built.artifacts:
            reasons = "; ".join(f"{r['profile']}: {', '.join(r['reasons'])}" for r in rejected)
            self._end(tick, run, state="failed", error=f"no profile passed its gate: {reasons}", who="user")
            return
        if run.deploy:
            run = self._release(tick, run, list(built.artifacts))
        self._end(tick, run, state="done", error=run.error, who=run.who)

    def failed(self, tick: Tick, failed: Failed) -> None:
        run = self._open.get(failed.run)
        if run is not None:
            self._end(tick, run, state="failed", error=failed.error, who=failed.who)

    def _release(self, tick: Tick, run: records.Run, built: list[records.Artifact]) -> records.Run:
        try:
            release = self._releases.release(tick, run.model, run.version, built)
            run = msgspec.structs.replace(run, release=release.id)
            rollout = self._releases.start(tick, release, built)
        except LeptaError as error:
            # What was built stays; the user can roll it out when the way is free.
            return msgspec.structs.replace(
                run, error=f"built, but not rolled out: {error.message} ({error.hint})", who=error.who
            )
        return msgspec.structs.replace(run, rollout=rollout.id)

    def _progress(self, tick: Tick, run: records.Run, event: Mapping[str, Any]) -> None:
        run = msgspec.structs.replace(
            run,
            step=str(event.get("step", "")),
            profile=str(event.get("profile") or ""),
            fraction=float(event.get("fraction") or 0.0),
            detail=str(event.get("detail") or ""),
            left_s=_seconds(event.get("left_s")),
        )
        self._open[run.id] = run
        self.watchers.changed(run.id)

    def _end(self, tick: Tick, run: records.Run, *, state: str, error: str | None, who: str | None) -> records.Run:
        run = msgspec.structs.replace(
            run, state=state, error=error, who=who, finished_at=tick.wall, fraction=1.0, left_s=None
        )
        tick.save(writes.put(run))
        tick.then(lambda: self._ended(run.id))
        self._ending[run.id] = self._open.pop(run.id)
        log.info("run %s of %s version %d: %s%s", run.id, run.model, run.version, state, f" ({error})" if error else "")
        return run

    def _ended(self, run_id: str) -> None:
        self._ending.pop(run_id, None)
        self.watchers.changed(run_id)

    # -- outside the loop: files and the optimizer; what comes of it returns through the inbox

    def _begin(self, tick: Tick, run: records.Run) -> None:
        self._open[run.id] = run
        tick.then(lambda: self._beside(run, self._prepare(run)))

    def _beside(self, run: records.Run, work: Coroutine[None, None, None]) -> None:
        self._background.start(work, lambda error: self._deliver(Failed(run.id, error, "us")))

    async def _prepare(self, run: records.Run) -> None:
        version = await self._store.read(reads.get(records.Version, run.model, run.version))
        earlier = await self._store.read(reads.every(records.Artifact, newest=True, limit=1, model=run.model))
        acceptance = earlier[0].files["acceptance"].digest if earlier else None
        spec = await asyncio.to_thread(self._inputs.lay_out, run, version, acceptance)
        # It may have been cancelled meanwhile.
        if run.id in self._open:
            self._optimizer.submit(run.id, spec, self.out(run.id))

    async def _sign(self, run: records.Run, report: dict[str, Any]) -> None:
        version = await self._store.read(reads.get(records.Version, run.model, run.version))
        built = await self._signer.sign(version, report, self.out(run.id), run.terms)
        self._deliver(Built(run.id, tuple(built), report))


def _waiting(run: records.Run) -> records.Run:
    return msgspec.structs.replace(run, state="queued", step="", profile="", fraction=0.0, detail="", left_s=None)


def _seconds(told: object) -> float | None:
    return float(told) if isinstance(told, int | float) and 0 <= told < 1e9 else None
