"""What a device reports of a swap: what the candidate proved, what its first answers were like, what all of it cost."""

from __future__ import annotations

from typing import Literal

import msgspec

from agent.contract.fields import Count, Short, Text
from agent.contract.manifest import Digest


class ProbeResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the candidate proved on the device."""

    agreement: float
    sqnr_db: float
    accuracy: float
    serving_accuracy: float | None = None
    latency_ms: float = 0.0
    """Median of one row."""
    memory_mb: float = 0.0
    """PSS of the candidate worker with the model loaded."""
    load_ms: float = 0.0


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """Requests answered by the agent inside a stretch of time, measured from receipt to answer."""

    requests: Count = 0
    failed: Count = 0
    p50_ms: float | None = None
    p99_ms: float | None = None


class WatchResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the first answers of a version were like after the switch, beside those of the version before."""

    answers: Count = 0
    faults: Count = 0
    crashes: Count = 0
    """Times its worker ended by itself."""
    seconds: float = 0.0
    p95_before_ms: float | None = None
    """Of one row, inside the worker, of the version before."""
    p95_ms: float | None = None
    drift: float | None = None
    """Share of answers that moved to other classes, 0 to 1; None where there was nothing to compare."""


class ShadowResult(msgspec.Struct, frozen=True, kw_only=True):
    """Live requests that the candidate answered beside the serving version."""

    compared: Count = 0
    agreed: Count = 0
    seconds: float = 0.0


class SwapRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What one swap cost."""

    model: Short
    to_version: Count
    to_artifact: Digest
    outcome: Literal["committed", "refused", "rolled_back", "failed"]
    from_version: Count | None = None
    from_artifact: Digest | None = None
    reason: Text = ""
    way: Literal["mqtt", "http", "held"] = "mqtt"
    fetched_bytes: Count = 0
    fetch_s: float = 0.0
    total_s: float = 0.0
    gap_ms: float = 0.0
    """How long no worker of the model took requests; 0 when the old one served until the switch."""
    probe: ProbeResult | None = None
    control: Window = Window()
    """As long as `during`, directly before it."""
    during: Window = Window()
    """From the fork of the candidate to the exit of the old worker."""
    watch: WatchResult | None = None
    """None where it never came to the switch."""
    shadow: ShadowResult | None = None
    """None where no shadow phase was asked for, or nothing served beside which it could run."""
    memory_peak_mb: float = 0.0
    """PSS of all workers of the model that were there, each as it found at its probe; 0 where one did not."""
    alone: bool = False
    """There was too little memory for two: the old worker left before the candidate was loaded."""
    who: Literal["", "user", "device", "network", "us"] = ""
    """At fault where it was not committed."""
    cause: Short = ""
    """Why it was refused, as in `ModelState`."""
