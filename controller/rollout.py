"""PURE: bring a release to the fleet. Now in one wave, all at once; a device that refuses goes back to what it had.

`(state, event) -> (state, actions)`. Per device a table says which state follows which; what is not in it raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

# Where a device stands in a rollout.
PENDING, SENT, SERVING, REFUSED, FAILED, LOST, NO_ARTIFACT = (
    "pending", "sent", "serving", "refused", "failed", "lost", "no-artifact",
)  # fmt: skip
# Where a rollout stands.
RUNNING, DONE, BROKEN, ABORTED = "running", "done", "failed", "aborted"

_SETTLED = frozenset({SERVING, REFUSED, FAILED, LOST, NO_ARTIFACT})

# Who may follow whom. A lost device that comes back goes on; a refusal is final for this rollout.
_FOLLOWS: Mapping[str, frozenset[str]] = {
    PENDING: frozenset({SENT, LOST, NO_ARTIFACT}),
    SENT: frozenset({SENT, SERVING, REFUSED, FAILED, LOST}),
    LOST: frozenset({LOST, SENT, SERVING, REFUSED, FAILED}),
    SERVING: frozenset({SERVING, FAILED, LOST}),
    REFUSED: frozenset({REFUSED}),
    FAILED: frozenset({FAILED}),
    NO_ARTIFACT: frozenset({NO_ARTIFACT}),
}


class RolloutError(ValueError):
    """An event that cannot follow; carries the device's history."""


@dataclass(frozen=True)
class Share:
    """One device's part in a rollout."""

    device: str
    profile: str | None
    artifact: str | None
    state: str = PENDING
    reason: str = ""
    history: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rollout:
    id: str
    release: str
    model: str
    version: int
    shares: tuple[Share, ...]
    state: str = RUNNING
    deadline: float | None = None
    """Monotonic seconds; a device that has not answered by then counts as lost."""

    @property
    def open(self) -> bool:
        return self.state == RUNNING


# -- events


@dataclass(frozen=True)
class Started:
    """`online`: names of the devices that are connected now; `timeout_s`: how long a silent device is waited for."""

    online: frozenset[str]
    timeout_s: float


@dataclass(frozen=True)
class Reported:
    """A device told the state of the model that this rollout brings."""

    device: str
    artifact: str
    state: str
    reason: str = ""


@dataclass(frozen=True)
class Gone:
    device: str


@dataclass(frozen=True)
class Ticked:
    pass


@dataclass(frozen=True)
class Aborted:
    pass


Event = Started | Reported | Gone | Ticked | Aborted


# -- actions


@dataclass(frozen=True)
class SetDesired:
    """The device is to run this rollout's artifact of `profile`."""

    device: str
    profile: str


@dataclass(frozen=True)
class Restore:
    """The device is to run again what it ran before this rollout."""

    device: str


Action = SetDesired | Restore


def step(rollout: Rollout, event: Event, now: float) -> tuple[Rollout, list[Action]]:
    """Take one event; `now` in monotonic seconds. Events for a rollout that ended change nothing."""
    if not rollout.open:
        return rollout, []
    match event:
        case Started(online, timeout_s):
            return _start(replace(rollout, deadline=now + timeout_s), online)
        case Reported():
            rollout, actions = _report(rollout, event)
        case Gone(device):
            rollout, actions = _gone(rollout, device)
        case Ticked():
            rollout, actions = _overdue(rollout, now), []
        case Aborted():
            restores: list[Action] = [Restore(s.device) for s in rollout.shares if s.state in (SENT, SERVING, LOST)]
            return replace(rollout, state=ABORTED), restores
    return _settle(rollout), actions


def _start(rollout: Rollout, online: frozenset[str]) -> tuple[Rollout, list[Action]]:
    actions: list[Action] = []
    for share in rollout.shares:
        if share.artifact is None or share.profile is None:
            rollout = _move(rollout, share.device, NO_ARTIFACT, share.reason)
            continue
        # An offline device gets its desired state too: it takes it up when it returns, without this rollout.
        actions.append(SetDesired(share.device, share.profile))
        here = share.device in online
        rollout = _move(rollout, share.device, SENT if here else LOST, "" if here else "offline; it follows on return")
    return _settle(rollout), actions


def _report(rollout: Rollout, event: Reported) -> tuple[Rollout, list[Action]]:
    share = _share(rollout, event.device)
    if share is None or share.artifact != event.artifact or share.state in (REFUSED, FAILED, NO_ARTIFACT):
        return rollout, []
    if event.state == "serving":
        return _move(rollout, share.device, SERVING, ""), []
    if event.state in ("refused", "failed"):
        return _move(rollout, share.device, event.state, event.reason), [Restore(share.device)]
    return rollout, []


def _gone(rollout: Rollout, device: str) -> tuple[Rollout, list[Action]]:
    share = _share(rollout, device)
    if share is None or share.state != SENT:
        return rollout, []
    return _move(rollout, device, LOST, "went offline; it follows on return"), []


def _overdue(rollout: Rollout, now: float) -> Rollout:
    if rollout.deadline is None or now < rollout.deadline:
        return rollout
    for share in rollout.shares:
        if share.state == SENT:
            rollout = _move(rollout, share.device, LOST, "did not report in time")
    return rollout


def _settle(rollout: Rollout) -> Rollout:
    states = {share.state for share in rollout.shares}
    if not states <= _SETTLED:
        return rollout
    good = SERVING in states and not states & {REFUSED, FAILED}
    # A fleet that is offline or still empty has its desired state: nothing failed, devices follow when they come.
    good = good or states <= {LOST}
    return replace(rollout, state=DONE if good else BROKEN)


def _share(rollout: Rollout, device: str) -> Share | None:
    return next((share for share in rollout.shares if share.device == device), None)


def _move(rollout: Rollout, device: str, state: str, reason: str) -> Rollout:
    shares = tuple(_moved(share, state, reason) if share.device == device else share for share in rollout.shares)
    return replace(rollout, shares=shares)


def _moved(share: Share, state: str, reason: str) -> Share:
    if state not in _FOLLOWS[share.state]:
        raise RolloutError(f"{share.device}: {state} cannot follow {share.state}; history: {' > '.join(share.history)}")
    return replace(share, state=state, reason=reason, history=(*share.history, share.state))
