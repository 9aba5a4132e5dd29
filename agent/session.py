"""PURE: the agent's side of the connection: who is the controller, what is desired, which leases are held.

`(state, event, now) -> (state, actions)`. `now` in monotonic seconds; jitter comes inside the event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from agent.contract.messages import Desired, Work

LeaseKey = tuple[str, int, int]
"""(job, shard, attempt): computed at most once."""


_SETTLE_S = 0.02


class Lease(msgspec.Struct, frozen=True):
    """`boot`: the controller's boot id that gave it; `session`: the agent's connection that it came over."""

    boot: str
    session: str
    expires: float
    running: bool = False


class Session(msgspec.Struct, frozen=True, kw_only=True):
    agent: str
    generation: int = 0
    connected: bool = False
    session: str = ""
    controller: str = ""
    """Boot id of the controller heard last."""
    announced: int = 0
    """Number of its last announcement: the retained one is the same however often the broker repeats it."""
    leases: Mapping[LeaseKey, Lease] = {}
    finished: tuple[LeaseKey, ...] = ()
    """The last shards that were computed, oldest first."""
    remember: int = 1024


# -- events


class Connected(NamedTuple):
    """The broker took us; `session` is new with every connection."""

    session: str


class Disconnected(NamedTuple):
    pass


class ControllerSeen(NamedTuple):
    """The controller's status. `jitter` in seconds spreads the fleet's hellos."""

    boot: str
    seq: int
    online: bool
    jitter: float


class DesiredArrived(NamedTuple):
    """A desired state whose signature was verified."""

    desired: Desired


class Leased(NamedTuple):
    work: Work


class Taken(NamedTuple):
    """A worker begins with this shard."""

    key: LeaseKey


class Finished(NamedTuple):
    """It was computed, or given up."""

    key: LeaseKey


class Ticked(NamedTuple):
    pass


Event = Connected | Disconnected | ControllerSeen | DesiredArrived | Leased | Taken | Finished | Ticked


# -- actions


class SayHello(NamedTuple):
    after: float


class Apply(NamedTuple):
    """Make this the desired state, on disk first."""

    desired: Desired


class Report(NamedTuple):
    """Tell the controller again where the models stand."""


class Refuse(NamedTuple):
    """Count and drop. `reason` for the log."""

    reason: str


class Queue(NamedTuple):
    key: LeaseKey
    work: Work
    expires: float


class Forget(NamedTuple):
    """Do not compute this shard any more."""

    key: LeaseKey


Action = SayHello | Apply | Report | Refuse | Queue | Forget
Outcome = tuple[Session, list[Action]]


def step(state: Session, event: Event, now: float) -> Outcome:
    """Take one event."""
    match event:
        case Connected(session):
            state = msgspec.structs.replace(state, connected=True, session=session)
            state, actions = _drop(state, lambda lease: lease.session != session)
            # A moment later: the retained controller status that follows would ask for the same hello again.
            return state, [SayHello(_SETTLE_S), *actions]
        case Disconnected():
            return msgspec.structs.replace(state, connected=False), []
        case ControllerSeen():
            return _controller(state, event)
        case DesiredArrived(desired):
            return _desired(state, desired)
        case Leased(work):
            return _leased(state, work, now)
        case Taken(key):
            return _taken(state, key, now)
        case Finished(key):
            leases = {k: lease for k, lease in state.leases.items() if k != key}
            finished = (*state.finished, key)[-state.remember :]
            return msgspec.structs.replace(state, leases=leases, finished=finished), []
        case Ticked():
            return _drop(state, lambda lease: lease.expires <= now)


def _controller(state: Session, event: ControllerSeen) -> Outcome:
    if not event.online or (event.boot, event.seq) == (state.controller, state.announced):
        return state, []
    # The same boot with a new number: the controller lost its connection, and may have missed our hello.
    state = msgspec.structs.replace(state, controller=event.boot, announced=event.seq)
    state, actions = _drop(state, lambda lease: lease.boot != event.boot)
    return state, [SayHello(event.jitter), *actions]


def _desired(state: Session, desired: Desired) -> Outcome:
    if desired.agent != state.agent:
        return state, [Refuse(f"desired state of another agent ({desired.agent})")]
    if desired.generation < state.generation:
        return state, [Refuse(f"desired generation {desired.generation} is older than {state.generation}")]
    if desired.generation == state.generation:
        return state, [Report()]
    return msgspec.structs.replace(state, generation=desired.generation), [Apply(desired)]


def _leased(state: Session, work: Work, now: float) -> Outcome:
    key = (work.job, work.shard, work.attempt)
    if key in state.leases or key in state.finished:
        return state, []
    expires = now + work.ttl_ms / 1000
    lease = Lease(work.boot, state.session, expires)
    return _with_lease(state, key, lease), [Queue(key, work, expires)]


def _taken(state: Session, key: LeaseKey, now: float) -> Outcome:
    lease = state.leases.get(key)
    if lease is None or lease.expires <= now:
        return state, [Forget(key)]
    return _with_lease(state, key, msgspec.structs.replace(lease, running=True)), []


def _with_lease(state: Session, key: LeaseKey, lease: Lease) -> Session:
    return msgspec.structs.replace(state, leases={**state.leases, key: lease})


def _drop(state: Session, unwanted: Callable[[Lease], bool]) -> Outcome:
    """Forget waiting leases; what runs is finished, and the controller fences a result that comes too late."""
    gone = [key for key, lease in state.leases.items() if not lease.running and unwanted(lease)]
    if not gone:
        return state, []
    leases = {key: lease for key, lease in state.leases.items() if key not in gone}
    return msgspec.structs.replace(state, leases=leases), [Forget(key) for key in gone]
