"""Optimizer runs as the loop sees them: queued, followed, and what they built turned into signed artifacts."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from controller import reads, records, writes
from controller.artifacts import Signer
from controller.background import Background
from controller.catalog import Catalog
from controller.errors import Conflict, LeptaError, NotFound
from controller.releases import Releases
from controller.store import Store
from controller.tick import Tick

log = logging.getLogger("lepta.runs")


class Optimizer(Protocol):
    """What runs need of the optimizer's process."""

    def submit(self, run_id: str, run: dict[str, Any], out: Path) -> None: ...
    def cancel(self, run_id: str) -> None: ...


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
        folder: Path,
        store: Store,
        catalog: Catalog,
        signer: Signer,
        optimizer: Optimizer,
        releases: Releases,
        *,
        new_id: Callable[[str], str],
        deliver: Callable[[Built | Failed], None],
    ) -> None:
        """`deliver` puts an event into the loop's inbox."""
        self._folder = folder
        self._store = store
        self._catalog = catalog
        self._signer = signer
        self._optimizer = optimizer
        self._releases = releases
        self._new_id = new_id
        self._deliver = deliver
        self._open: dict[str, records.Run] = {}
        self._background = Background()

    def restore(self, unfinished: Iterable[records.Run]) -> None:
        """Runs that a stop interrupted begin again: a run can go twice."""
        for run in unfinished:
            if run.id not in self._open:
                self._open[run.id] = run
                self._start(run)

    def progress(self, run: records.Run) -> records.Run:
        """The run with the progress that is not in the store yet."""
        return self._open.get(run.id, run)

    def queue(
        self, tick: Tick, version: records.Version, profiles: tuple[str, ...], *, strict: bool, deploy: bool
    ) -> records.Run:
        run = records.Run(
            id=self._new_id("run"),
            model=version.model,
            version=version.version,
            profiles=profiles,
            strict=strict,
            deploy=deploy,
            created_at=tick.wall,
        )
        self._open[run.id] = run
        tick.save(writes.put(run))
        tick.then(lambda: self._start(run))
        return run

    def cancel(self, tick: Tick, run_id: str) -> records.Run:
        run = self._open.get(run_id)
        if run is None:
            raise NotFound(f"no unfinished run is called {run_id!r}", "lepta run ls")
        if run.step == "sign":
            raise Conflict(f"run {run_id} has just been built", "abort its rollout instead")
        tick.then(lambda: self._optimizer.cancel(run_id))
        return self._end(tick, run, state="cancelled", error="cancelled by its user", who="user")

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
            return msgspec.structs.replace(run, error=f"built, but not rolled out: {error.message}", who=error.who)
        return msgspec.structs.replace(run, rollout=rollout.id)

    def _progress(self, tick: Tick, run: records.Run, event: Mapping[str, Any]) -> None:
        first = run.state == "queued"
        run = msgspec.structs.replace(
            run,
            state="running",
            started_at=run.started_at or tick.wall,
            step=str(event.get("step", "")),
            profile=str(event.get("profile") or ""),
            fraction=float(event.get("fraction") or 0.0),
            detail=str(event.get("detail") or ""),
        )
        self._open[run.id] = run
        if first:
            tick.save(writes.put(run))

    def _end(self, tick: Tick, run: records.Run, *, state: str, error: str | None, who: str | None) -> records.Run:
        run = msgspec.structs.replace(run, state=state, error=error, who=who, finished_at=tick.wall, fraction=1.0)
        tick.save(writes.put(run))
        del self._open[run.id]
        log.info("run %s of %s version %d: %s%s", run.id, run.model, run.version, state, f" ({error})" if error else "")
        return run

    # -- outside the loop: files and the optimizer; what comes of it returns through the inbox

    def _start(self, run: records.Run) -> None:
        self._beside(run, self._prepare(run))

    def _beside(self, run: records.Run, work: Coroutine[None, None, None]) -> None:
        self._background.start(work, lambda error: self._deliver(Failed(run.id, error, "us")))

    async def _prepare(self, run: records.Run) -> None:
        version = await self._store.read(reads.get(records.Version, run.model, run.version))
        earlier = await self._store.read(reads.every(records.Artifact, newest=True, limit=1, model=run.model))
        acceptance = earlier[0].files["acceptance"].digest if earlier else None
        spec = await asyncio.to_thread(self._lay_out, run, version, acceptance)
        self._optimizer.submit(run.id, spec, self._out(run))

    def _lay_out(self, run: records.Run, version: records.Version, acceptance: str | None) -> dict[str, Any]:
        """Give the optimizer its inputs under names with the endings that it goes by."""
        inputs = self._folder / run.id / "in"
        inputs.mkdir(parents=True, exist_ok=True)
        source = self._link(version.source, inputs / Path(version.source_name).name)
        data = self._link(version.data, inputs / "data.npz") if version.data else None
        previous = self._link(acceptance, inputs / "acceptance.npz") if acceptance else None
        return {
            "model": run.model,
            "version": run.version,
            "source": str(source),
            "data": str(data) if data else None,
            "profiles": list(run.profiles),
            "strict": run.strict,
            "labels": list(version.labels),
            "preprocessing": msgspec.to_builtins(version.preprocessing),
            "previous_acceptance": str(previous) if previous else None,
            "seed": 0,
        }

    def _link(self, digest: str, path: Path) -> Path:
        path.unlink(missing_ok=True)
        try:
            os.link(self._catalog.path(digest), path)
        except OSError:
            shutil.copyfile(self._catalog.path(digest), path)
        return path

    async def _sign(self, run: records.Run, report: dict[str, Any]) -> None:
        version = await self._store.read(reads.get(records.Version, run.model, run.version))
        built = await self._signer.sign(version, report, self._out(run))
        self._deliver(Built(run.id, tuple(built), report))

    def _out(self, run: records.Run) -> Path:
        return self._folder / run.id / "out"
