"""PURE: one job over many devices: split, lease, retry, speculate, accept each shard once.

The controller hands out *leases*: a shard, to a device, with an attempt number that fences late answers. Each device
has a *credit*: how many shards may wait there, so that it stays busy between two decisions of the loop, no longer. At
the tail, a shard that would finish late is leased a second time to an idle device; the first answer counts.
No time, randomness or I/O: `handle(event, now)` with `now` in monotonic seconds returns what to do.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from controller.holders import Holders
from controller.leases import Accept as Accept
from controller.leases import Action as Action
from controller.leases import Answered as Answered
from controller.leases import Counters as Counters
from controller.leases import DeviceClosed as DeviceClosed
from controller.leases import DeviceGone as DeviceGone
from controller.leases import DeviceReady as DeviceReady
from controller.leases import DeviceShare as DeviceShare
from controller.leases import Event as Event
from controller.leases import Finish as Finish
from controller.leases import Lease as Lease
from controller.leases import Policy as Policy
from controller.leases import Quarantine as Quarantine
from controller.leases import Refuse as Refuse
from controller.leases import Ticked as Ticked
from controller.shards import Shard

PENDING, LEASED, ACCEPTED, QUARANTINED = "pending", "leased", "accepted", "quarantined"


# -- state


@dataclass
class _Held:
    """A lease in force."""

    device: str
    attempt: int
    since: float
    expected_s: float
    expires: float


@dataclass
class _ShardState:
    shard: Shard
    state: str = PENDING
    attempts: int = 0
    held: list[_Held] = field(default_factory=list)
    failed_on: dict[str, str] = field(default_factory=dict)
    blocked_since: float | None = None
    """Since when every device that is ready has another replica of the same rows."""


class Job:
    """The state of one job and its rules. Owned by the loop; feeding it the same events gives the same actions."""

    def __init__(
        self,
        shards: list[Shard],
        policy: Policy,
        attempts: dict[int, int] | None = None,
        *,
        apart: int = 0,
        devices: dict[str, DeviceShare] | None = None,
        accepted_by: dict[int, str] | None = None,
        near: Mapping[int, Collection[str]] | None = None,
    ) -> None:
        """`attempts`: highest attempt number per shard used before a restart, so that old answers stay fenced.

        `apart`: shards whose numbers differ by a multiple of it are replicas, and go to different devices; 0: there are
        none. `devices`, `accepted_by` (device per shard): what was done before a restart. `near`: who holds its rows.
        """
        used = attempts or {}
        self._apart = apart
        self._accepted_by: dict[int, dict[int, str]] = {}
        for number, device in (accepted_by or {}).items():
            self._note_accepted(number, device)
        self._shards = {shard.number: _ShardState(shard, attempts=used.get(shard.number, 0)) for shard in shards}
        self._holders = Holders(near)
        # What somebody holds is handed out last to others.
        self._pending = deque(sorted((shard.number for shard in shards), key=self._holders.is_held))
        self._leased: dict[int, _ShardState] = {}
        self._policy = policy
        self._open = len(shards)
        self._last = max(self._shards, default=0)
        self.devices: dict[str, DeviceShare] = dict(devices or {})
        self.counters = Counters()
        self._parts: Mapping[str, float] = {}
        self.accepted = 0
        self.quarantined: dict[int, str] = {}

    @property
    def finished(self) -> bool:
        return self._open == 0

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take one event and say what to do; leases are handed out by `assign` once all events of a tick are in."""
        match event:
            case DeviceReady(device, row_s):
                known = self.devices.get(device)
                speed = known.row_s if known and known.shards else row_s
                self.devices[device] = replace(known or DeviceShare(speed), row_s=speed, ready=True)
                return []
            case DeviceClosed(device):
                if device in self.devices:
                    self.devices[device] = replace(self.devices[device], ready=False)
                return []
            case DeviceGone(device):
                return self._take_back(device)
            case Answered():
                return self._answer(event, now)
            case Ticked():
                return self._expire(now)

    @property
    def waiting(self) -> bool:
        """Are there shards that nobody holds?"""
        return bool(self._pending)

    def assign(self, now: float, parts: Mapping[str, float] | None = None) -> list[Action]:
        """Lease what is pending to devices with credit, fastest first; copy stragglers when nothing is pending.

        `parts`: which part of a device's queue this job may fill, 1 where it is not named.
        """
        self._parts = parts or {}
        actions: list[Action] = self._assign_near(now)
        waiting: list[int] = []
        while any(self._has_credit(name, now) for name in self.devices):
            state = self._shards[self._pending.popleft()]
            device = self._best_for(state, now)
            if device is None:
                waiting.append(state.shard.number)
            else:
                actions.append(self._lease(state, device, now))
        self._pending.extendleft(reversed(waiting))
        if self._pending:
            return actions
        while (copy := self._straggler(now)) is not None:
            self.counters.speculated += 1
            actions.append(replace(self._lease(*copy, now), speculative=True))
        return actions

    # -- answers

    def _answer(self, event: Answered, now: float) -> list[Action]:
        state = self._shards.get(event.shard)
        if state is None:
            return [Refuse(event.shard, event.attempt, event.device, "no such shard")]
        held = next((h for h in state.held if (h.device, h.attempt) == (event.device, event.attempt)), None)
        if held is not None and event.turned_down and state.state == LEASED:
            share = self.devices[event.device]
            self.devices[event.device] = replace(share, rests_until=now + self._policy.rest_s)
            return self._lose(state, held, event.error)
        if held is not None:
            self._drop(state, held)
        if held is None or state.state in (ACCEPTED, QUARANTINED):
            return [self._refuse(state, event)]
        if event.error:
            return self._failed(state, event)
        self._credit_for(event, state.shard)
        state.state = ACCEPTED
        self._note_accepted(event.shard, event.device)
        self.accepted += 1
        self._open -= 1
        done: list[Action] = [Accept(state.shard, event.attempt, event.device)]
        return done + self._finish_if_done()

    def _refuse(self, state: _ShardState, event: Answered) -> Refuse:
        if state.state == ACCEPTED:
            self.counters.duplicates_refused += 1
            return Refuse(event.shard, event.attempt, event.device, "the shard was accepted already")
        self.counters.stale_refused += 1
        return Refuse(event.shard, event.attempt, event.device, "the lease was taken back")

    def _failed(self, state: _ShardState, event: Answered) -> list[Action]:
        state.failed_on[event.device] = event.error
        if event.user_fault or len(state.failed_on) >= self._policy.max_failing_devices:
            return self._quarantine(state, event.error)
        if state.held:
            return []  # The copy may still succeed.
        if state.attempts >= self._policy.max_attempts:
            return self._quarantine(state, event.error)
        self._requeue(state)
        return []

    def _quarantine(self, state: _ShardState, reason: str) -> list[Action]:
        for held in list(state.held):
            self._drop(state, held)
        state.state = QUARANTINED
        self.quarantined[state.shard.number] = reason
        self._open -= 1
        actions: list[Action] = [Quarantine(state.shard, reason)]
        return actions + self._finish_if_done()

    def _finish_if_done(self) -> list[Action]:
        return [Finish()] if self.finished else []

    def _credit_for(self, event: Answered, shard: Shard) -> None:
        share = self.devices.get(event.device)
        if share is None:
            return
        measured = event.busy_s / max(1, shard.rows)
        row_s = measured if not share.shards else 0.7 * share.row_s + 0.3 * measured
        self.devices[event.device] = replace(
            share,
            row_s=row_s,
            shards=share.shards + 1,
            rows=share.rows + shard.rows,
            busy_s=share.busy_s + event.busy_s,
        )

    # -- losses

    def _take_back(self, device: str) -> list[Action]:
        share = self.devices.get(device)
        if share is None:
            return []
        self.devices[device] = replace(share, ready=False)
        actions: list[Action] = []
        for state in list(self._leased.values()):
            for held in [h for h in state.held if h.device == device]:
                actions += self._lose(state, held, f"{device} was lost")
        return actions

    def _expire(self, now: float) -> list[Action]:
        actions: list[Action] = []
        for state in list(self._leased.values()):
            for held in [h for h in state.held if h.expires <= now]:
                actions += self._lose(state, held, f"the lease on {held.device} ran out")
        return actions

    def _lose(self, state: _ShardState, held: _Held, why: str) -> list[Action]:
        self._drop(state, held)
        if state.held or state.state != LEASED:
            return []
        if state.attempts >= self._policy.max_attempts:
            return self._quarantine(state, f"given up after {state.attempts} attempts; last: {why}")
        self.counters.moved += 1
        self._requeue(state)
        return []

    def _requeue(self, state: _ShardState) -> None:
        state.state = PENDING
        self._pending.appendleft(state.shard.number)

    def _drop(self, state: _ShardState, held: _Held) -> None:
        state.held.remove(held)
        if not state.held:
            self._leased.pop(state.shard.number, None)
        share = self.devices[held.device]
        self.devices[held.device] = replace(
            share, outstanding=share.outstanding - 1, waiting_rows=share.waiting_rows - state.shard.rows
        )

    # -- leases

    def _lease(self, state: _ShardState, device: str, now: float) -> Lease:
        share = self.devices[device]
        waiting = share.waiting_rows + state.shard.rows
        ttl = max(self._policy.lease_s, 10 * waiting * share.row_s)
        state.attempts += 1
        state.state = LEASED
        state.held.append(_Held(device, state.attempts, now, waiting * share.row_s, now + ttl))
        self._leased[state.shard.number] = state
        self.devices[device] = replace(share, outstanding=share.outstanding + 1, waiting_rows=waiting)
        return Lease(device, state.shard, state.attempts, ttl)

    def _assign_near(self, now: float) -> list[Action]:
        """Devices go on with what they hold."""
        actions: list[Action] = []
        for name in sorted(self.devices):
            while self._has_credit(name, now) and (number := self._holders.take(name, self._may_have)) is not None:
                self._pending.remove(number)
                actions.append(self._lease(self._shards[number], name, now))
        return actions

    def _may_have(self, name: str, number: int) -> bool:
        state = self._shards.get(number)
        fits = state is not None and state.state == PENDING and name not in state.failed_on
        return fits and name not in self._with_replicas(number)

    def _has_credit(self, name: str, now: float) -> bool:
        share, rows = self.devices[name], self._shards[self._pending[0]].shard.rows if self._pending else 0
        return rows > 0 and share.free(now) and share.outstanding < self._credit(name, rows)

    def _best_for(self, state: _ShardState, now: float) -> str | None:
        """The device that would finish the shard first, among those with credit left that have not failed it."""
        if self._only_failed_devices_left(state):
            # Nobody else is there to prove the shard innocent: let it try again, up to max_attempts.
            state.failed_on.clear()
        rows = state.shard.rows
        taken = self._taken(state, now)
        free = [
            (self._finish_s(share, rows), name)
            for name, share in self.devices.items()
            if share.free(now)
            and share.outstanding < self._credit(name, rows)
            and name not in state.failed_on
            and name not in taken
        ]
        return min(free)[1] if free else None

    def _taken(self, state: _ShardState, now: float) -> set[str]:
        """Devices that have another replica of the same rows; nobody, once it was waited long enough for others."""
        taken = self._with_replicas(state.shard.number)
        if any(share.ready and name not in taken for name, share in self.devices.items()):
            state.blocked_since = None
        elif state.blocked_since is None:
            state.blocked_since = now
        elif now - state.blocked_since >= self._policy.apart_s:
            return set()
        return taken

    def _with_replicas(self, number: int) -> set[str]:
        if not self._apart:
            return set()
        first = number % self._apart
        others = {n: device for n, device in self._accepted_by.get(first, {}).items() if n != number}
        held = {h.device for n in self._replicas(first) if n != number for h in self._shards[n].held}
        return held | set(others.values())

    def _replicas(self, first: int) -> list[int]:
        """Numbers of the open replicas."""
        return [n for n in range(first, self._last + 1, self._apart) if n in self._shards]

    def _note_accepted(self, number: int, device: str) -> None:
        if self._apart:
            self._accepted_by.setdefault(number % self._apart, {})[number] = device

    def _only_failed_devices_left(self, state: _ShardState) -> bool:
        ready = [name for name, share in self.devices.items() if share.ready]
        return bool(ready) and all(name in state.failed_on for name in ready)

    def _credit(self, device: str, rows: int) -> int:
        """Shards that may wait at a device: `cover_s` of work, spread evenly as the end comes near."""
        part, share = self._parts.get(device, 1.0), self.devices[device]
        if not part:
            return 0
        ready = sum(1 for other in self.devices.values() if other.ready)
        shard_s = max(share.row_s * rows, 1e-6)
        # Two, so that it is busy while the next is on its way; jobs that share it see to that together.
        cover = max(2 if part == 1.0 else 1, math.ceil(part * self._policy.cover_s / shard_s))
        fair = max(1, math.ceil((len(self._pending) + share.outstanding) / max(1, ready)))
        return min(cover, self._policy.max_credit, fair)

    def _straggler(self, now: float) -> tuple[_ShardState, str] | None:
        """A leased shard and an idle device that would finish it clearly earlier than where it waits."""
        idle = [
            (share.row_s, name)
            for name, share in self.devices.items()
            if share.free(now) and not share.outstanding and self._parts.get(name, 1.0)
        ]
        if not idle:
            return None
        row_s, device = min(idle)
        late = [
            (self._wait_s(held, now), state.shard.number)
            for state in self._leased.values()
            if len(state.held) == 1
            and state.state == LEASED
            and device not in state.failed_on
            and device not in self._with_replicas(state.shard.number)
            for held in state.held
        ]
        if not late:
            return None
        wait_s, number = max(late)
        state = self._shards[number]
        worth = wait_s > self._policy.speculate_factor * row_s * state.shard.rows + 0.05
        return (state, device) if worth and state.attempts < self._policy.max_attempts else None

    def _wait_s(self, held: _Held, now: float) -> float:
        """How long a leased shard will still wait for its result: by its device's measured speed, or without end when
        it is overdue."""
        if now - held.since > held.expected_s + self._policy.overdue_s:
            return math.inf
        share = self.devices[held.device]
        return share.waiting_rows * share.row_s

    @staticmethod
    def _finish_s(share: DeviceShare, rows: int) -> float:
        return (share.waiting_rows + rows) * share.row_s
