"""PURE: what a request may begin and what is kept of answers, by the controller's policy and by a model's own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

OnDemand = Literal["off", "place", "optimize"]
"""What a request for a model that no device can answer may begin: nothing; a rollout of what was built; also a run of
the optimizer for what was not."""
Keep = Literal["none", "errors", "sampled", "answers", "all"]
"""What is stored of requests that a device was asked: nothing; those that failed; a share of the answers; every answer;
every answer with the inputs that the caller sent."""
ON_DEMAND: tuple[OnDemand, ...] = ("off", "place", "optimize")
KEEP: tuple[Keep, ...] = ("none", "errors", "sampled", "answers", "all")

Rate = Annotated[float, Meta(ge=0, le=1)]
Days = Annotated[float, Meta(gt=0, le=3650)]
Megabytes = Annotated[float, Meta(ge=0, le=1_000_000)]

# Bytes that an answer takes beside its tensors, in a full page or in one of its own.
ROW_BYTES = 400
_DAY_S = 86400.0


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Inputs are somebody's data: nothing but `all` keeps them."""

    on_demand: OnDemand = "place"
    keep: Keep = "answers"
    rate: Rate = 0.01
    """The share that `sampled` keeps."""
    days: Days = 7.0
    megabytes: Megabytes = 256.0
    """Of one model's answers, 10^6 bytes; the oldest go first."""

    @property
    def most_bytes(self) -> int:
        return int(self.megabytes * 1e6)

    def oldest(self, now: float) -> float:
        """Answers from before this time go; both in seconds since 1970."""
        return now - self.days * _DAY_S


class Override(msgspec.Struct, frozen=True, kw_only=True):
    """A model's own policy; None: as the controller has it."""

    on_demand: OnDemand | None = None
    keep: Keep | None = None
    rate: Rate | None = None
    days: Days | None = None
    megabytes: Megabytes | None = None


def of(default: Policy, override: Override) -> Policy:
    """What holds for a model."""
    said = {name: value for name, value in msgspec.structs.asdict(override).items() if value is not None}
    return msgspec.structs.replace(default, **said)


def keeps(policy: Policy, failed: bool, draw: float) -> bool:
    """Whether a request is stored; `draw` in [0, 1) decides for samples. A failed one is an answer like any other,
    except that `errors` keeps nothing else."""
    match policy.keep:
        case "none":
            return False
        case "errors":
            return failed
        case "sampled":
            return draw < policy.rate
        case "answers" | "all":
            return True


def keeps_inputs(policy: Policy) -> bool:
    return policy.keep == "all"


def surplus(oldest_first: Iterable[tuple[str, int]], total: int, most: int) -> list[str]:
    """The ids that must go, the oldest first, so that of `total` bytes at most `most` are left; no more than that.

    `oldest_first`: id and bytes; if these do not suffice, all of them go.
    """
    gone: list[str] = []
    for key, size in oldest_first:
        if total <= most:
            break
        gone.append(key)
        total -= size
    return gone
