"""One device as the loop knows it."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.contract.messages import BindingState, Load, ModelState, SeenWindow
from controller import records

# States in which a model answers requests.
_ANSWERS = frozenset({"serving", "watching"})


@dataclass
class Known:
    """A device's record, and what is only known while it is here."""

    record: records.Device
    online: bool = False
    gone: bool = False
    """It said goodbye, and the next turn has still to see to that."""
    boot: str = ""
    """Boot id of the agent's process that said hello last."""
    seen_at: float = float("-inf")
    """Monotonic seconds of its last message."""
    load: Load | None = None
    service_ms: dict[str, float] = field(default_factory=dict)
    """Measured time of one row by artifact."""
    root: int = 0
    """Version of the root document that it says it holds."""
    told: bool = False
    """Its desired state was sent since this controller began: it may name other mirrors than the last one did."""
    bindings: tuple[BindingState, ...] = ()
    """Where its bindings stand, as it said last."""
    packings: tuple[str, ...] = ()
    """What it can unpack, where that is worth it on its way."""
    stored: bool = False
    """It can answer shards as its model stores numbers."""
    together: int = 0
    """Requests that it takes in one message; 0: one."""
    window: SeenWindow = field(default_factory=SeenWindow)

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def approved(self) -> bool:
        return self.record.state == "approved"

    @property
    def labels(self) -> dict[str, str]:
        """The operator's above those that the device says."""
        return {**self.record.facts.labels, **self.record.labels}

    def serving(self, model: str) -> ModelState | None:
        for reported in self.record.reported:  # Not next() of a generator: it is asked for with every request.
            if reported.model == model and reported.state in _ANSWERS:
                return reported
        return None

    def away(self, model: str) -> str:
        """Why a version that served here does not answer for a while; empty where none says so."""
        return next((m.reason for m in self.record.reported if m.model == model and m.state == "staging"), "")

    def expected_row_s(self, artifact: str, probed_ms: float = 0.0) -> float:
        """Seconds that a row will take, by what was measured (requests, else its probe) and how busy the host is."""
        stretched = 1 + self.load.cpu if self.load is not None else 1.0
        return stretched * ((self.row_ms(artifact) or probed_ms) / 1000 or 0.001)

    def row_ms(self, artifact: str) -> float:
        """Measured time of one row; 0 where nothing was measured."""
        if self.load is not None:
            for model in self.load.models:
                if model.artifact == artifact and model.service_ms > 0:
                    return model.service_ms
        return self.service_ms.get(artifact, 0.0)
