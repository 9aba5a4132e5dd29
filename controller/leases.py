"""PURE: what `work` is told, what it says, and by which policy."""

from __future__ import annotations

from dataclasses import dataclass

from controller.shards import Shard


@dataclass(frozen=True)
class Policy:
    """How a job is spread. Times in seconds."""

    target_s: float = 0.4
    """Computing time of one shard, on the fastest device."""
    longest_s: float = 1.0
    """And at most so much on the slowest one."""
    shard_bytes: int = 4 * 1024 * 1024
    """Of rows in one shard: a device holds a few of them in memory, and in its store."""
    cover_s: float = 0.6
    """How much work may wait at a device: it covers the loop's pause between decisions, and the way."""
    max_credit: int = 32
    max_attempts: int = 8
    """Leases of one shard before it is given up."""
    max_failing_devices: int = 2
    """A shard that failed on this many devices is poison: quarantined, and the rest goes on."""
    lease_s: float = 30.0
    """Least time to live of a lease; slow devices get more, by their measured speed."""
    speculate_factor: float = 1.5
    """An idle device copies a shard when it would be done this much earlier than where the shard waits."""
    overdue_s: float = 2.0
    """So much later than expected, a shard is copied whatever its device was measured at."""
    rest_s: float = 5.0
    """How long a device that turned a shard down gets no other: its queue is full, or it serves something else now."""
    apart_s: float = 15.0
    """How long a replica waits for a device that has no other replica of the same rows."""


# -- events


@dataclass(frozen=True)
class DeviceReady:
    """A device may compute for this job: it holds the pinned artifact. `row_s`: measured or estimated seconds a row."""

    device: str
    row_s: float


@dataclass(frozen=True)
class DeviceGone:
    """Lost, drained, restarted, or it no longer holds the artifact: what it holds goes elsewhere."""

    device: str


@dataclass(frozen=True)
class DeviceClosed:
    """It gets nothing more; what it holds, it computes."""

    device: str


@dataclass(frozen=True)
class Answered:
    """A device's result for a lease. `error` empty: computed. `busy_s`: time inside the worker."""

    device: str
    shard: int
    attempt: int
    busy_s: float
    error: str = ""
    user_fault: bool = False
    """The input itself is wrong: no other device can do better."""
    turned_down: bool = False
    """The device did not try: its error says nothing about the shard."""


@dataclass(frozen=True)
class Ticked:
    pass


Event = DeviceReady | DeviceClosed | DeviceGone | Answered | Ticked


# -- actions


@dataclass(frozen=True)
class Lease:
    device: str
    shard: Shard
    attempt: int
    ttl_s: float
    speculative: bool = False


@dataclass(frozen=True)
class Accept:
    shard: Shard
    attempt: int
    device: str


@dataclass(frozen=True)
class Refuse:
    """A result that counts for nothing: a second copy, or of a lease that was taken back."""

    shard: int
    attempt: int
    device: str
    reason: str


@dataclass(frozen=True)
class Quarantine:
    shard: Shard
    reason: str


@dataclass(frozen=True)
class Finish:
    """Every shard is accepted or quarantined."""


Action = Lease | Accept | Refuse | Quarantine | Finish


# -- what is known


@dataclass(frozen=True)
class DeviceShare:
    """What a device did for the job, and how fast it is."""

    row_s: float
    ready: bool = True
    outstanding: int = 0
    waiting_rows: int = 0
    shards: int = 0
    rows: int = 0
    busy_s: float = 0.0
    rests_until: float = 0.0
    """It turned a shard down, and gets none until then."""

    def free(self, now: float) -> bool:
        return self.ready and self.rests_until <= now


@dataclass
class Counters:
    moved: int = 0
    """Shards leased anew because their device was lost or turned them down, or their lease ran out."""
    speculated: int = 0
    duplicates_refused: int = 0
    stale_refused: int = 0
