"""One model on this device: performs what `swap` decides, and keeps the serving version going."""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from agent import admission, frames, room, swap, watched
from agent.blobs import BlobError
from agent.candidate import Candidate, place_for
from agent.check import open_manifest, start_order
from agent.contract.faults import fault
from agent.contract.manifest import Manifest, ManifestError
from agent.contract.manifest import Watch as WatchTerms
from agent.contract.messages import DesiredModel, ModelState
from agent.contract.signing import SignatureError
from agent.fetch import Batch
from agent.fetch import Outcome as Fetched
from agent.ground import Ground, Owner
from agent.latencies import Latencies
from agent.lines import Waiting
from agent.pointers import ModelPointers, Pointer
from agent.serving import Member, Serving
from agent.states import model_states
from agent.swaplog import Outcome, SwapLog
from agent.watch import Watch, seen
from agent.way_back import WayBack

_log = logging.getLogger("lepta.agent.slot")
NO_TERMS = WatchTerms()


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
        self._watch = Watch(ground.loop, self._event)
        self._tally = watched.Tally()
        """What the latest answers of the serving version were like."""
        self._terms = watched.terms(NO_TERMS, ground.limits)
        self._way_back = WayBack(model, ground, owner, self._serve, self.want)
        self._plain: dict[type[swap.Action], Callable[[], None]] = {
            swap.FetchManifest: self._fetch_manifest,
            swap.Verify: self._verify,
            swap.Stage: self._stage,
            swap.MakeRoom: self._make_room,
            swap.Resume: self._resume,
            swap.Probe: self._probe,
            swap.Shadow: self._shadow,
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
        self._serve(pointer)

    def want(self, target: DesiredModel) -> None:
        """Bring this version to serve, unless it does, is on its way, or was refused in this generation."""
        self._way_back.left = False
        serving = self._pointers.serving
        if self._swap is not None and not self._swap.ended:
            self._turn_to(target)
        elif serving is not None and serving.wanted.manifest == target.manifest:
            self._owner.report(None)
        elif self._pointers.refused != target or not admission.still_refused(target, self._ground):
            self._begin(target)
        else:
            if self._pointers.refused_cause == "expired":
                self._way_back.retry_later(target)
            self._owner.report(None)

    def leave(self) -> None:
        """The model is not wanted any more: finish what is held, then forget it."""
        self.stop()
        self._ground.keeper.save(lambda pointers: pointers.without(self.model), self._forgotten)

    def stop(self) -> None:
        """Finish what workers hold and let them go. The pointers stay."""
        self._way_back.left = True
        self._way_back.calm()
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
        if computed.id and member is self.serving.member:
            answer = seen(item, computed, fault=ours)
            self._tally.take(answer)
            self._watch.answered(answer)
            if self._candidate is not None:
                self._candidate.answered(item, computed)

    def serving_ready(self) -> None:
        if self._swap is not None and self._swap.state == "watching" and not self._watch.begun:
            self._begin_watch()
        self._owner.report(None)

    def serving_lost(self, reason: str, orphaned: bool) -> None:
        if orphaned:
            _log.warning("%s: %s", self.model, reason)  # No version is to blame.
        elif self._watch.begun:
            _log.warning("%s: under watch, its worker ended: %s", self.model, reason)
            self._watch.crashed(reason)
        elif self._swap is not None and self._swap.state == "watching":
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
        self._way_back.fall_back()

    # -- performing

    @property
    def _pointers(self) -> ModelPointers:
        return self._ground.keeper.current.of(self.model)

    def _begin(self, target: DesiredModel) -> None:
        self._way_back.calm()
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
        self._fetch([(self._target.manifest, None)])

    def _fetch_files(self, manifest: Manifest) -> None:
        self._fetch([(file.digest, file.size) for file in manifest.files.values()])

    def _fetch(self, wanted: list[tuple[str, int | None]]) -> None:
        self._batch = Batch(self._ground.fetcher, wanted, self._got)

    def _got(self, outcome: Fetched) -> None:
        self._logbook.fetched(outcome)
        self._event(swap.Broken(outcome.who, outcome.error) if outcome.error else swap.Fetched())

    def _verify(self) -> None:
        self._event(admission.verdict(self._target, self._ground))

    def _stage(self) -> None:
        assert self._swap is not None
        assert self._swap.manifest is not None
        place = "beside" if self._swap.alone else place_for(self._swap.manifest, self._ground, self.serving.member)
        if place == "instead":
            self._event(swap.Cramped())
            return
        if place == "none":
            needed = room.needed_mb(self._swap.manifest)
            self._event(swap.Broken("device", f"too little memory is free here: it needs about {needed:.0f} MB"))
            return
        self._logbook.staged(self._loop.now())
        self._candidate = Candidate(self._target, self._swap.manifest, self._ground, self._event)
        self._candidate.start(behind=self.serving.member is not None)

    def _make_room(self) -> None:
        _log.warning("%s: too little memory for two versions; the one that serves leaves first", self.model)
        self._logbook.staged(self._loop.now())
        self._logbook.old = self.serving.member.pointer if self.serving.member else None

        def gone() -> None:
            if self._swap is draining and not self._way_back.left:
                self._event(swap.Drained())

        draining = self._swap
        self.serving.pause(gone)

    def _resume(self) -> None:
        serving = self._pointers.serving
        if serving is not None and not self._way_back.left:
            self._serve(serving)

    def _shadow(self) -> None:
        assert self._candidate is not None
        self.serving.compared = self.serving.live
        if self.serving.live:
            self._candidate.shadow()
        else:
            self._event(swap.Agreed())  # Nothing serves with which it could be compared.

    def _probe(self) -> None:
        assert self._candidate is not None
        assert self._swap is not None
        assert self._swap.manifest is not None
        self._terms = watched.terms(self._swap.manifest.watch, self._ground.limits, self._target.watch)
        self._candidate.probe()

    def _save_pointers(self) -> None:
        assert self._candidate is not None
        fresh, old = self._candidate.settle(), self._pointers.serving
        self._logbook.shadow = self._candidate.shadowed
        self._logbook.weighed([fresh.memory_mb, *self.serving.memories_mb()])

        def saved(error: Exception | None) -> None:
            candidate = self._candidate
            if self._way_back.left:
                self._discard()
                return
            if error is not None:
                self._event(swap.Broken("device", f"the state cannot be saved: {error}"))
                return
            self._event(swap.Saved())
            if candidate is not None and candidate.member.state == "gone" and not candidate.orphaned:
                self._event(swap.Lost("it ended during the switch"))

        self._ground.keeper.save(
            lambda pointers: pointers.with_model(
                self.model, serving=fresh, previous=old, refused=None, candidate=None, tries=0
            ),
            saved,
        )

    def _route(self) -> None:
        assert self._candidate is not None
        candidate, self._candidate = self._candidate, None
        if self.serving.member is not None:
            self._logbook.old = self.serving.member.pointer
        if candidate.orphaned:  # Not the version's fault: it is loaded anew, and watched once it is there.
            self._serve(self._pointers.serving)
            return
        self.serving.route(candidate.member)
        self._begin_watch()

    def _begin_watch(self) -> None:
        before, self._tally = self._tally, watched.Tally()
        self._watch.begin(self._terms, before)

    def _commit(self) -> None:
        self._watch.end()
        self._way_back.settled()
        serving = self._pointers.serving
        assert serving is not None
        settled = msgspec.structs.replace(serving, watched=True)
        self._way_back.save({"serving": settled})

    def _roll_back(self) -> None:
        self._watch.end()
        assert self._swap is not None
        self._way_back.fall_back(denied=self._swap)

    def _discard(self) -> None:
        if self._batch is not None:
            self._batch.cancel()
        if self._candidate is not None:
            candidate, self._candidate = self._candidate, None
            self._logbook.shadow = candidate.shadowed
            candidate.end()

    def _finish(self, outcome: Outcome) -> None:
        assert self._swap is not None
        logbook, ended = self._logbook, self._swap
        log = _log.info if outcome == "committed" else _log.warning
        why = f": {ended.reason}" if ended.reason else ""
        log("%s: version %d %s%s", self.model, ended.target.version, outcome, why)
        if outcome == "refused":
            self._way_back.deny(ended, "refused")
            self._ground.standing.refusals[ended.cause] += 1
            if ended.cause == "expired":  # By a clock that may be set.
                self._way_back.retry_later(ended.target)
        elif outcome == "failed":
            self._way_back.retry_later(ended.target)
        logbook.watch = self._watch.result() if outcome in ("committed", "rolled_back") else None
        self._close_record(logbook, ended, outcome)

    def _close_record(self, logbook: SwapLog, ended: swap.Swap, outcome: Outcome) -> None:
        """The record is whole when the old worker has exited, and when one that had to leave is back."""
        if self.serving.leaving or (ended.alone and self.serving.down and not self._way_back.left):
            self._loop.call_later(0.02, lambda: self._close_record(logbook, ended, outcome))
            return
        gone = self.serving.last_exit
        self._owner.report(
            logbook.record(ended, outcome, gone, self._loop.now(), self.serving.downtime, self.latencies)
        )

    # -- falling back and trying again

    def _serve(self, pointer: Pointer | None) -> None:
        """From disk; None: nothing."""
        if pointer is None:
            self.serving.stop()
            return
        ground, wanted = self._ground, pointer.wanted
        try:
            # It passed every check when it was installed, and what serves goes on serving.
            manifest = open_manifest(ground.blobs.read(wanted.manifest), ground.standing.roots.every_key(), wanted)
            order = start_order(manifest, ground.blobs, ground.standing.device(), ground.extra_ms_per_row)
        except (BlobError, OSError, SignatureError, ManifestError) as error:
            _log.error("%s version %d cannot be served from disk: %s", self.model, wanted.version, error)
            self._loop.call_soon(self._way_back.fall_back)
            return
        self._terms = watched.terms(manifest.watch, ground.limits, wanted.watch)
        self.serving.begin(Member(pointer, order))

    # -- small things

    @property
    def _target(self) -> DesiredModel:
        assert self._swap is not None
        return self._swap.target

    def _report_soon(self) -> None:
        self._owner.report(None)

    def _forgotten(self, error: Exception | None) -> None:
        if error is not None:
            _log.error("%s: the state cannot be saved: %s", self.model, error)
        self._owner.report(None)
