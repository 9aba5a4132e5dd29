"""One model on this device: performs what `swap` decides, and keeps the serving version going."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

import msgspec

from agent import frames, swap
from agent.backoff import Backoff
from agent.blobs import BlobError
from agent.candidate import Candidate
from agent.check import check_manifest, start_order
from agent.contract.faults import fault
from agent.contract.manifest import Manifest, ManifestError
from agent.contract.messages import DesiredModel, ModelState
from agent.contract.signing import SignatureError
from agent.fetch import Batch, Outcome
from agent.ground import Ground, Owner
from agent.latencies import Latencies
from agent.lines import Waiting
from agent.pointers import ModelPointers, Pointer
from agent.serving import Member, Serving
from agent.states import model_states
from agent.swaplog import SwapLog
from agent.watch import Watch

_log = logging.getLogger("lepta.agent.slot")


class Slot:
    """Call `start` once, `want` whenever the desired state changes, `offer` for every request."""

    def __init__(self, model: str, ground: Ground, owner: Owner) -> None:
        self.model = model
        self._ground = ground
        self._owner = owner
        self._loop = ground.loop
        self.serving = Serving(ground.loop, ground.workers, ground.limits, self)
        self.latencies = Latencies()
        self._swap: swap.Swap | None = None
        self._next: DesiredModel | None = None
        self._candidate: Candidate | None = None
        self._batch: Batch | None = None
        self._logbook = SwapLog(0.0, 0.0)
        self._watch = Watch(ground.loop, ground.limits, self._event)
        self._retry = Backoff(ground.loop, ground.limits.retry_first, ground.limits.retry_most)
        self._leaving = False
        self._plain: dict[type[swap.Action], Callable[[], None]] = {
            swap.FetchManifest: self._fetch_manifest,
            swap.Verify: self._verify,
            swap.Stage: self._stage,
            swap.Probe: self._probe,
            swap.SavePointers: self._save_pointers,
            swap.Route: self._route,
            swap.Commit: self._commit,
            swap.RollBack: self._roll_back,
            swap.Discard: self._discard,
            swap.Report: self._report_soon,
        }

    # -- what the supervisor calls

    def start(self) -> None:
        """Serve the last good version from disk; no network needed."""
        pointer = self._pointers.serving
        if pointer is None:
            return
        if not pointer.watched:  # We were ended between switch and commit: the watch goes on.
            self._swap = swap.resume(pointer.wanted)
            self._logbook = SwapLog(self._loop.now(), 0.0)
        self._serve_from_disk(pointer)

    def want(self, target: DesiredModel) -> None:
        """Bring this version to serve, unless it does, is on its way, or was refused in this generation."""
        self._leaving = False
        serving = self._pointers.serving
        if self._swap is not None and not self._swap.ended:
            self._turn_to(target)
        elif serving is not None and serving.wanted.manifest == target.manifest:
            self._owner.report(None)
        elif self._pointers.refused != target:
            self._begin(target)
        else:
            self._owner.report(None)

    def leave(self) -> None:
        """The model is not wanted any more: finish what is held, then forget it."""
        self._leaving = True
        self.stop()
        self._ground.keeper.save(lambda pointers: pointers.without(self.model), self._forgotten)

    def stop(self) -> None:
        """Finish what workers hold and let them go. The pointers stay."""
        self._retry.cancel()
        if self._swap is not None and self._swap.state not in swap.ENDED | {"switching", "watching"}:
            self._event(swap.Superseded())
        self._watch.end()
        self.serving.stop()

    def pinned(self) -> set[str]:
        """Digests that a swap under way needs, or a request or shard that waits."""
        pinned = self.serving.blobs()
        if self._swap is not None and not self._swap.ended and self._swap.manifest is not None:
            pinned |= {file.digest for file in self._swap.manifest.files.values()}
        return pinned

    @property
    def idle(self) -> bool:
        """Nothing runs or leaves here."""
        return not len(self.serving) and not self.serving.leaving

    def states(self) -> list[ModelState]:
        """Where this model stands: what serves, and what is on its way or was turned down."""
        return model_states(self._pointers, self._swap, self.serving.member)

    # -- what the serving side tells (serving.Observer)

    def take_shard(self, key: tuple[str, int, int]) -> bool:
        return self._owner.take_shard(key)

    def answered(self, item: Waiting, computed: frames.Computed, member: Member | None) -> None:
        ours = computed.fault is not None and computed.fault.who != "user"
        if not item.is_shard:
            now = self._loop.now()
            self.latencies.add(now, (now - item.received) * 1000, ours)
        self._owner.answered(item, computed, member)
        if self._swap is not None and self._swap.state == "watching" and computed.id:
            self._watch.answered(fault=ours)

    def serving_ready(self) -> None:
        if self._swap is not None and self._swap.state == "watching" and not self._watch.begun:
            self._watch.begin()
        self._owner.report(None)

    def serving_lost(self, reason: str, orphaned: bool) -> None:
        if self._swap is not None and self._swap.state == "watching" and not orphaned:
            self._event(swap.Lost(reason))
        self._owner.report(None)

    def serving_failed(self, failed: frames.Failed) -> None:
        """What served cannot be loaded any more: serve the previous version and get this one anew."""
        _log.error("%s cannot be loaded: %s", self.model, failed.fault.message)
        for digest in failed.damaged:
            self._ground.blobs.drop(digest)
        if self._swap is not None and self._swap.state == "watching":
            self._event(swap.Broken(failed.fault.who, failed.fault.message))
            return
        self._fall_back()

    # -- performing

    @property
    def _pointers(self) -> ModelPointers:
        return self._ground.keeper.current.of(self.model)

    def _begin(self, target: DesiredModel) -> None:
        self._retry.cancel()
        _log.info("%s: version %d is wanted (artifact %s)", self.model, target.version, target.artifact[:12])
        self._logbook = SwapLog(self._loop.now(), self.serving.downtime)
        self._swap, actions = swap.begin(target)
        self._perform(actions)

    def _turn_to(self, target: DesiredModel) -> None:
        assert self._swap is not None
        if self._swap.target == target:
            self._next = None
        elif self._swap.state in ("switching", "watching"):
            self._next = target  # Too late to turn: it follows when this one has ended.
        else:
            self._event(swap.Superseded())
            self.want(target)

    def _event(self, event: swap.Event) -> None:
        assert self._swap is not None
        before = self._swap.state
        self._swap, actions = swap.step(self._swap, event)
        _log.debug("%s %d: %s -> %s", self.model, self._swap.target.version, before, self._swap.state)
        self._perform(actions)
        if self._swap.ended and self._next is not None:
            following, self._next = self._next, None
            self.want(following)

    def _perform(self, actions: list[swap.Action]) -> None:
        for action in actions:
            fault(f"swap.{type(action).__name__}")
            if isinstance(action, swap.FetchFiles):
                self._fetch_files(action.manifest)
            elif isinstance(action, swap.Finish):
                self._finish(action.outcome)
            else:
                self._plain[type(action)]()

    def _fetch_manifest(self) -> None:
        target = self._target
        self._fetch([(target.manifest, None)])

    def _fetch_files(self, manifest: Manifest) -> None:
        self._fetch([(file.digest, file.size) for file in manifest.files.values()])

    def _fetch(self, wanted: list[tuple[str, int | None]]) -> None:
        self._batch = Batch(self._ground.fetcher, wanted, self._got)

    def _got(self, outcome: Outcome) -> None:
        self._logbook.fetched(outcome)
        self._event(swap.Broken(outcome.who, outcome.error) if outcome.error else swap.Fetched())

    def _verify(self) -> None:
        ground, target = self._ground, self._target
        floor = ground.keeper.current.minimum_sequence.get(self.model, 0)
        try:
            envelope = ground.blobs.read(target.manifest)
            manifest = check_manifest(envelope, ground.release_key(), target, floor, ground.runtimes, ground.limits)
        except (BlobError, OSError) as error:
            self._event(swap.Broken("device", str(error)))
        except (SignatureError, ManifestError) as error:
            self._event(swap.Refused("us", str(error)))
        else:
            self._event(swap.Verified(manifest))

    def _stage(self) -> None:
        assert self._swap is not None
        assert self._swap.manifest is not None
        self._logbook.staged(self._loop.now())
        self._candidate = Candidate(self._target, self._swap.manifest, self._ground, self._event)
        self._candidate.start(behind=self.serving.member is not None)

    def _probe(self) -> None:
        assert self._candidate is not None
        self._candidate.probe()

    def _save_pointers(self) -> None:
        assert self._candidate is not None
        fresh, old = self._candidate.settle(), self._pointers.serving

        def saved(error: Exception | None) -> None:
            candidate = self._candidate
            if self._leaving:
                self._discard()
                return
            if error is not None:
                self._event(swap.Broken("device", f"the state cannot be saved: {error}"))
                return
            self._event(swap.Saved())
            if candidate is not None and candidate.member.state == "gone":
                self._event(swap.Lost("it ended during the switch"))

        self._ground.keeper.save(
            lambda pointers: pointers.with_model(
                self.model, serving=fresh, previous=old, refused=None, candidate=None, tries=0
            ),
            saved,
        )

    def _route(self) -> None:
        assert self._candidate is not None
        member, self._candidate = self._candidate.member, None
        self._logbook.old = self.serving.member.pointer if self.serving.member else None
        self.serving.route(member)
        self._watch.begin()

    def _commit(self) -> None:
        self._watch.end()
        self._retry.reset()
        serving = self._pointers.serving
        assert serving is not None
        settled = msgspec.structs.replace(serving, watched=True)
        self._ground.keeper.save(lambda pointers: pointers.with_model(self.model, serving=settled), self._save_noted)

    def _roll_back(self) -> None:
        self._watch.end()
        self._remember_refusal("failed")
        self._fall_back()

    def _discard(self) -> None:
        if self._batch is not None:
            self._batch.cancel()
        if self._candidate is not None:
            candidate, self._candidate = self._candidate, None
            candidate.end()

    def _finish(self, outcome: Literal["committed", "refused", "rolled_back", "failed"]) -> None:
        assert self._swap is not None
        logbook, ended = self._logbook, self._swap
        log = _log.info if outcome == "committed" else _log.warning
        why = f": {ended.reason}" if ended.reason else ""
        log("%s: version %d %s%s", self.model, ended.target.version, outcome, why)
        if outcome == "refused":
            self._remember_refusal("refused")
        elif outcome == "failed":
            self._retry_later(ended.target)
        self._close_record(logbook, ended, outcome)

    def _close_record(
        self, logbook: SwapLog, ended: swap.Swap, outcome: Literal["committed", "refused", "rolled_back", "failed"]
    ) -> None:
        """The record is whole when the old worker has exited."""
        if self.serving.leaving:
            self._loop.call_later(0.02, lambda: self._close_record(logbook, ended, outcome))
            return
        until = self.serving.last_exit if logbook.old is not None else self._loop.now()
        record = logbook.record(ended, outcome, until, self.serving.downtime, self.latencies)
        self._owner.report(record)

    # -- falling back and trying again

    def _remember_refusal(self, state: str) -> None:
        assert self._swap is not None
        target, reason = self._swap.target, self._swap.reason[:4000]

        def saved(error: Exception | None) -> None:
            self._save_noted(error)
            self._owner.report(None)

        self._ground.keeper.save(
            lambda p: p.with_model(self.model, refused=target, refused_state=state, refused_reason=reason), saved
        )

    def _fall_back(self) -> None:
        """Serve the previous version, if there is one; what served is given up."""
        lost, previous = self._pointers.serving, self._pointers.previous
        rolled_back = self._swap is not None and self._swap.state == "rolled_back"

        def saved(error: Exception | None) -> None:
            self._save_noted(error)
            if previous is None:
                self.serving.stop()
            else:
                self._serve_from_disk(previous)
            self._owner.report(None)
            if lost is not None and not rolled_back:
                self._retry_later(lost.wanted)

        self._ground.keeper.save(lambda p: p.with_model(self.model, serving=previous, previous=None), saved)

    def _serve_from_disk(self, pointer: Pointer) -> None:
        ground, wanted = self._ground, pointer.wanted
        try:
            envelope = ground.blobs.read(wanted.manifest)
            manifest = check_manifest(envelope, ground.release_key(), wanted, 0, ground.runtimes, ground.limits)
            order = start_order(manifest, ground.blobs, ground.runtimes, ground.extra_ms_per_row)
        except (BlobError, OSError, SignatureError, ManifestError) as error:
            _log.error("%s version %d cannot be served from disk: %s", self.model, wanted.version, error)
            self._loop.call_soon(self._fall_back)
            return
        self.serving.begin(Member(pointer, order))

    def _retry_later(self, target: DesiredModel) -> None:
        def again() -> None:
            if not self._leaving and target in self._ground.keeper.current.desired:
                self.want(target)

        self._retry.later(again)

    # -- small things

    @property
    def _target(self) -> DesiredModel:
        assert self._swap is not None
        return self._swap.target

    def _report_soon(self) -> None:
        self._owner.report(None)

    def _save_noted(self, error: Exception | None) -> None:
        if error is not None:
            _log.error("%s: the state cannot be saved: %s", self.model, error)

    def _forgotten(self, error: Exception | None) -> None:
        self._save_noted(error)
        self._owner.report(None)
