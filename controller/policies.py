"""The policies in force: the controller's, and what models say otherwise."""

from __future__ import annotations

from collections.abc import Iterable

from controller import policy, records, writes
from controller.policy import Override, Policy
from controller.tick import Tick


class Policies:
    """Owned by the loop; `of` may be called from any thread."""

    def __init__(self, default: Policy) -> None:
        self.default = default
        self._overrides: dict[str, Override] = {}
        self._known: dict[str, Policy] = {}

    def restore(self, models: Iterable[records.Model]) -> None:
        self._overrides = {model.name: model.policy for model in models if model.policy != Override()}
        self._known = {name: policy.of(self.default, override) for name, override in self._overrides.items()}

    def of(self, model: str) -> Policy:
        return self._known.get(model, self.default)

    def override(self, model: str) -> Override:
        return self._overrides.get(model, Override())

    def set(self, tick: Tick, model: str, override: Override) -> None:
        """From the next request on. What is stored already is held to new limits within a minute."""
        self._overrides[model] = override
        self._known[model] = policy.of(self.default, override)
        tick.save(writes.set_policy(model, override))
