"""What the API answers about bindings."""

from __future__ import annotations

from agent.contract.bindings import Audio
from agent.contract.manifest import Preprocessing
from controller.replies import Reply


class BoundDevice(Reply, frozen=True, kw_only=True):
    """Where a binding stands on one device: active, waiting, refused or offline. Counts since its agent started."""

    device: str
    state: str
    reason: str = ""
    received: int = 0
    predicted: int = 0
    dropped: int = 0
    failed: int = 0


class Binding(Reply, frozen=True, kw_only=True):
    """`devices` empty: every device. `states` of those that are to run the model."""

    name: str
    model: str
    topic: str
    format: str
    rate: float = 0.0
    keep: int = 0
    top_k: int = 0
    preprocessing: Preprocessing | None = None
    audio: Audio | None = None
    devices: tuple[str, ...] = ()
    created_at: float = 0.0
    states: tuple[BoundDevice, ...] = ()
    refused: int = 0
    """Devices of these that cannot read it."""
