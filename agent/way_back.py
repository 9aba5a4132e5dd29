"""What one model remembers on disk of versions that went wrong: which is denied, and which serves again instead."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

from agent import swap
from agent.backoff import Backoff
from agent.contract.messages import DesiredModel
from agent.ground import Ground, Owner
from agent.pointers import ModelPointers, Pointer

_log = logging.getLogger("lepta.agent.slot")


class WayBack:
    """`serve` is called with what serves from now on, None for nothing, once that is on disk; `again` with what may be
    tried once more. Neither after `left`."""

    def __init__(
        self,
        model: str,
        ground: Ground,
        owner: Owner,
        serve: Callable[[Pointer | None], None],
        again: Callable[[DesiredModel], None],
    ) -> None:
        self._model = model
        self._ground = ground
        self._owner = owner
        self._serve = serve
        self._again = again
        self._retry = Backoff(ground.loop, ground.limits.retry_first, ground.limits.retry_most)
        self.left = False
        """The model is not wanted any more, or the agent ends."""

    def calm(self) -> None:
        """Nothing is to be tried again."""
        self._retry.cancel()

    def settled(self) -> None:
        """A version stays: the next that fails is tried again soon."""
        self._retry.reset()

    def deny(self, ended: swap.Swap, state: Literal["refused", "failed"]) -> None:
        """Not to be tried again as long as this is wanted."""
        self.save(_denial(ended, state), lambda _: self._owner.report(None))

    def fall_back(self, denied: swap.Swap | None = None) -> None:
        """Serve the previous version, if there is one; what served is given up.

        A roll back denies its version in the same step on disk: no crash between the two can bring it back.
        """
        lost, previous = self._pointers.serving, self._pointers.previous

        def saved(_: Exception | None) -> None:
            self._serve(previous)
            self._owner.report(None)
            if lost is not None and denied is None:
                self.retry_later(lost.wanted)

        changes = _denial(denied, "failed") if denied is not None else {}
        self.save({"serving": previous, "previous": None, **changes}, saved)

    def retry_later(self, target: DesiredModel) -> None:
        def again() -> None:
            if not self.left and target in self._ground.keeper.current.desired:
                self._again(target)

        self._retry.later(again)

    def save(self, changes: dict[str, object], done: Callable[[Exception | None], None] | None = None) -> None:
        """Change the model's pointers. A disk that does not take it is told in the log: what serves goes on."""

        def saved(error: Exception | None) -> None:
            if error is not None:
                _log.error("%s: the state cannot be saved: %s", self._model, error)
            if done is not None and not self.left:
                done(error)

        self._ground.keeper.save(lambda pointers: pointers.with_model(self._model, **changes), saved)

    @property
    def _pointers(self) -> ModelPointers:
        return self._ground.keeper.current.of(self._model)


def _denial(ended: swap.Swap, state: Literal["refused", "failed"]) -> dict[str, object]:
    return {
        "refused": ended.target,
        "refused_state": state,
        "refused_reason": ended.reason[:4000],
        "refused_cause": ended.cause,
    }
