"""PURE: one swap of one model, from a wanted artifact to a serving one, as a table of transitions.

fetch manifest -> verify -> fetch files -> stage -> probe -> shadow, if the manifest asks for it -> switch -> watch ->
commit, or refuse, fail, roll back. The old version serves until `Route`; it is kept on disk for the way back. Where
there is too little memory for two it leaves before the candidate is staged, and `Resume` loads it again if that fails.
What is not in the table raises with the history.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from agent.contract.manifest import Manifest
from agent.contract.messages import DesiredModel, ProbeResult

State = Literal[
    "listed", "verifying", "fetching", "staging", "draining", "probing", "shadowing", "switching", "watching",
    "serving", "refused", "failed", "rolled_back", "superseded",
]  # fmt: skip
ENDED = frozenset({"serving", "refused", "failed", "rolled_back", "superseded"})
Who = Literal["user", "device", "network", "us"]
_HISTORY = 32
_TOLERANCE = 1e-9


class SwapError(RuntimeError):
    """An event that cannot happen in this state; carries what happened before."""


class Swap(msgspec.Struct, frozen=True, kw_only=True):
    """Where one swap stands."""

    target: DesiredModel
    state: State = "listed"
    manifest: Manifest | None = None
    probe: ProbeResult | None = None
    who: Who = "us"
    """At fault when it was refused or failed."""
    reason: str = ""
    alone: bool = False
    """The old worker left before the candidate came."""
    cause: str = ""
    """One of `manifest.CAUSES` when it was refused."""
    history: tuple[str, ...] = ()

    @property
    def ended(self) -> bool:
        return self.state in ENDED


# -- events


class Fetched(msgspec.Struct, frozen=True):
    """What was asked for lies in the store, whole and with the right digest."""


class Broken(msgspec.Struct, frozen=True):
    """It cannot be done now; a later try may work."""

    who: Who
    reason: str


class Refused(msgspec.Struct, frozen=True):
    """It must not serve; trying again would give the same."""

    who: Who
    reason: str
    cause: str = "load"


class Verified(msgspec.Struct, frozen=True):
    manifest: Manifest


class Ready(msgspec.Struct, frozen=True):
    """The candidate is loaded and warm."""


class Cramped(msgspec.Struct, frozen=True):
    """There is memory for one version only."""


class Drained(msgspec.Struct, frozen=True):
    """The old worker has finished what it held and is gone."""


class Agreed(msgspec.Struct, frozen=True):
    """The candidate answers live requests as the serving version does, or there is nothing to compare with."""


class Probed(msgspec.Struct, frozen=True):
    """`serving_accuracy`: what the serving version reached on the same acceptance set; None if that is not known."""

    result: ProbeResult
    serving_accuracy: float | None


class Lost(msgspec.Struct, frozen=True):
    """The worker ended by itself."""

    reason: str


class Saved(msgspec.Struct, frozen=True):
    """The pointers on disk name the new version as serving."""


class Steady(msgspec.Struct, frozen=True):
    """The watch is over and nothing happened."""


class Superseded(msgspec.Struct, frozen=True):
    """Something else is wanted now."""


Event = (
    Fetched
    | Broken
    | Refused
    | Verified
    | Ready
    | Cramped
    | Drained
    | Probed
    | Agreed
    | Lost
    | Saved
    | Steady
    | Superseded
)


# -- actions


class FetchManifest(msgspec.Struct, frozen=True):
    pass


class Verify(msgspec.Struct, frozen=True):
    """Signature, floor, and that it describes what is desired and this device can run."""


class FetchFiles(msgspec.Struct, frozen=True):
    manifest: Manifest


class Stage(msgspec.Struct, frozen=True):
    """Start the candidate worker."""


class MakeRoom(msgspec.Struct, frozen=True):
    """Let the old worker finish what it holds and go; what comes meanwhile waits."""


class Resume(msgspec.Struct, frozen=True):
    """Load the old version again."""


class Shadow(msgspec.Struct, frozen=True):
    """Have the candidate answer copies of live requests."""


class Probe(msgspec.Struct, frozen=True):
    """Have the candidate measure itself on the golden sets."""


class SavePointers(msgspec.Struct, frozen=True):
    """Name the new version as serving, the old one as previous, in one atomic step on disk."""


class Route(msgspec.Struct, frozen=True):
    """New requests go to the candidate; the old worker finishes what it holds and exits. Start the watch."""


class Commit(msgspec.Struct, frozen=True):
    """The new version stays."""


class RollBack(msgspec.Struct, frozen=True):
    """Serve the previous version again."""


class Discard(msgspec.Struct, frozen=True):
    """End the candidate and drop what was being fetched."""


class Report(msgspec.Struct, frozen=True):
    """Tell the controller where this stands."""


class Finish(msgspec.Struct, frozen=True):
    """The swap has ended: record what it cost."""

    outcome: Literal["committed", "refused", "rolled_back", "failed"]


Action = (
    FetchManifest
    | Verify
    | FetchFiles
    | Stage
    | MakeRoom
    | Resume
    | Probe
    | Shadow
    | SavePointers
    | Route
    | Commit
    | RollBack
    | Discard
    | Report
    | Finish
)
_Step = Callable[[Swap, Event], tuple[Swap, list[Action]]]


def begin(target: DesiredModel) -> tuple[Swap, list[Action]]:
    """A new swap towards `target`."""
    return Swap(target=target), [Report(), FetchManifest()]


def resume(target: DesiredModel) -> Swap:
    """The agent was ended while this version was watched."""
    return Swap(target=target, state="watching", history=("resumed",))


def step(swap: Swap, event: Event) -> tuple[Swap, list[Action]]:
    """Take one event. Raises SwapError with the history for one that cannot follow."""
    name = type(event).__name__
    found = _TABLE.get((swap.state, type(event)))
    if found is None:
        before = " -> ".join(swap.history) or "the start"
        what = f"{swap.target.model} {swap.target.version}"
        raise SwapError(f"{what}: {name} cannot follow {swap.state}; so far: {before}")
    swap = msgspec.structs.replace(swap, history=(*swap.history, f"{swap.state}:{name}")[-_HISTORY:])
    return found(swap, event)


def judge(manifest: Manifest, result: ProbeResult, serving_accuracy: float | None) -> str:
    """Why this candidate must not serve; empty if it may."""
    wanted, limits = manifest.parity, manifest.limits
    floor = manifest.acceptance.minimum
    loss = 0.0 if serving_accuracy is None else serving_accuracy - result.accuracy
    checks = (
        (result.agreement < wanted.agreement - _TOLERANCE,
         f"agrees with the float model on {result.agreement:.1%} of the parity set, {wanted.agreement:.1%} is needed"),
        (result.sqnr_db < wanted.sqnr_db - _TOLERANCE,
         f"parity {result.sqnr_db:.1f} dB, {wanted.sqnr_db:.1f} dB is needed"),
        (result.accuracy < floor - _TOLERANCE,
         f"accuracy {result.accuracy:.1%} on the acceptance set, {floor:.1%} is needed"),
        (loss > manifest.acceptance.tolerated_loss + _TOLERANCE,
         f"loses {loss:.1%} accuracy against what serves, {manifest.acceptance.tolerated_loss:.1%} is tolerated"),
        (0 < limits.latency_ms < result.latency_ms,
         f"takes {result.latency_ms:.2f} ms a row here, the limit is {limits.latency_ms:.2f} ms"),
        (0 < limits.memory_mb < result.memory_mb,
         f"takes {result.memory_mb:.1f} MB here, the limit is {limits.memory_mb:.1f} MB"),
    )  # fmt: skip
    return "; ".join(reason for failed, reason in checks if failed)


def _to(state: State, *actions: Action) -> _Step:
    return lambda swap, _: (msgspec.structs.replace(swap, state=state), list(actions))


def _verified(swap: Swap, event: Event) -> tuple[Swap, list[Action]]:
    assert isinstance(event, Verified)
    following = msgspec.structs.replace(swap, state="fetching", manifest=event.manifest)
    return following, [FetchFiles(event.manifest)]


def _probed(swap: Swap, event: Event) -> tuple[Swap, list[Action]]:
    assert isinstance(event, Probed)
    assert swap.manifest is not None
    shadow = swap.target.shadow or swap.manifest.shadow
    result = msgspec.structs.replace(event.result, serving_accuracy=event.serving_accuracy)
    reason = judge(swap.manifest, result, event.serving_accuracy)
    swap = msgspec.structs.replace(swap, probe=result)
    if reason:
        return _ended(swap, "refused", "user", reason, "probe")
    if shadow.requests and not swap.alone:
        return msgspec.structs.replace(swap, state="shadowing"), [Report(), Shadow()]
    return msgspec.structs.replace(swap, state="switching"), [Report(), SavePointers()]


def _cramped(swap: Swap, _: Event) -> tuple[Swap, list[Action]]:
    return msgspec.structs.replace(swap, state="draining", alone=True), [Report(), MakeRoom()]


def _superseded(swap: Swap, _: Event) -> tuple[Swap, list[Action]]:
    return msgspec.structs.replace(swap, state="superseded"), [Discard(), *_way_back(swap)]


def _way_back(swap: Swap) -> list[Action]:
    return [Resume()] if swap.alone else []


def _refused(swap: Swap, event: Event) -> tuple[Swap, list[Action]]:
    assert isinstance(event, Refused)
    return _ended(swap, "refused", event.who, event.reason, event.cause)


def _broken(swap: Swap, event: Event) -> tuple[Swap, list[Action]]:
    assert isinstance(event, Broken)
    return _ended(swap, "failed", event.who, event.reason)


def _lost_candidate(swap: Swap, event: Event) -> tuple[Swap, list[Action]]:
    assert isinstance(event, Lost)
    return _ended(swap, "refused", "user", f"its worker ended: {event.reason}", "load")


def _fell(swap: Swap, event: Event) -> tuple[Swap, list[Action]]:
    assert isinstance(event, Lost | Broken | Refused)
    swap = msgspec.structs.replace(swap, state="rolled_back", who="user", reason=f"while watched: {event.reason}")
    return swap, [RollBack(), Finish("rolled_back"), Report()]


def _ended(
    swap: Swap, state: Literal["refused", "failed"], who: Who, reason: str, cause: str = ""
) -> tuple[Swap, list[Action]]:
    swap = msgspec.structs.replace(swap, state=state, who=who, reason=reason, cause=cause)
    return swap, [Discard(), *_way_back(swap), Finish(state), Report()]


_TABLE: dict[tuple[State, type[Event]], _Step] = {
    ("listed", Fetched): _to("verifying", Report(), Verify()),
    ("listed", Broken): _broken,
    ("listed", Superseded): _superseded,
    ("verifying", Verified): _verified,
    ("verifying", Refused): _refused,
    ("verifying", Broken): _broken,
    ("verifying", Superseded): _superseded,
    ("fetching", Fetched): _to("staging", Report(), Stage()),
    ("fetching", Broken): _broken,
    ("fetching", Superseded): _superseded,
    ("staging", Ready): _to("probing", Report(), Probe()),
    ("staging", Refused): _refused,
    ("staging", Broken): _broken,
    ("staging", Lost): _lost_candidate,
    ("staging", Superseded): _superseded,
    ("staging", Cramped): _cramped,
    ("draining", Drained): _to("staging", Stage()),
    ("draining", Broken): _broken,
    ("draining", Superseded): _superseded,
    ("probing", Probed): _probed,
    ("probing", Refused): _refused,
    ("probing", Broken): _broken,
    ("probing", Lost): _lost_candidate,
    ("probing", Superseded): _superseded,
    ("shadowing", Agreed): _to("switching", Report(), SavePointers()),
    ("shadowing", Refused): _refused,
    ("shadowing", Broken): _broken,
    ("shadowing", Lost): _lost_candidate,
    ("shadowing", Superseded): _superseded,
    ("switching", Saved): _to("watching", Route(), Report()),
    ("switching", Broken): _broken,
    ("watching", Steady): _to("serving", Commit(), Finish("committed"), Report()),
    ("watching", Lost): _fell,
    ("watching", Broken): _fell,
    ("watching", Refused): _fell,
}
