"""A version that takes the whole agent down with it: starts are counted until it has proved itself.

A worker that dies is the supervisor's business. This is about what kills the supervisor or the device: memory that runs
out, a driver that hangs the board, a brown-out. Nobody is left to watch then, so the count stands on disk, before
anything is started, and no controller is needed to go back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from agent.contract.messages import DesiredModel
from agent.keeper import Change, Keeper
from agent.loop import Loop, Timer
from agent.pointers import ModelPointers, Pointer, Pointers
from agent.settings import Limits

_log = logging.getLogger("lepta.agent.boots")
_LOOKS = 4
_BLAME = "the agent or its device went down"


def started(pointers: Pointers, most: int) -> Pointers:
    """PURE: one start more. What was at work in more than `most` starts that ended early is given up."""
    return _each(pointers, lambda model: _start_of(model, most))


def stopped(pointers: Pointers) -> Pointers:
    """PURE: the agent ends as it was told to; that blames nobody."""
    return _each(pointers, lambda model: _with_serving(model, starts=0))


def steady(pointers: Pointers, proved: dict[str, DesiredModel]) -> Pointers:
    """PURE: these versions have served for long without the agent ending."""
    kept = {name: model for name, model in pointers.models.items() if _serves(model, proved.get(name))}
    fresh = {name: _with_serving(model, starts=0, steady=True) for name, model in kept.items()}
    return msgspec.structs.replace(pointers, models={**pointers.models, **fresh})


def trying(pointers: Pointers, target: DesiredModel) -> Pointers:
    """PURE: a candidate of this version is about to be started."""
    before = pointers.of(target.model)
    tries = before.tries if before.candidate == target else 0
    return pointers.with_model(target.model, candidate=target, tries=tries + 1)


def tried(pointers: Pointers, target: DesiredModel) -> Pointers:
    """PURE: its candidate has ended, and the agent has not."""
    if pointers.of(target.model).candidate != target:
        return pointers
    return pointers.with_model(target.model, candidate=None, tries=0)


class BootCount:
    """`start` before the agent, `stop` after it has ended as it was told to."""

    def __init__(self, loop: Loop, keeper: Keeper, limits: Limits) -> None:
        self._loop = loop
        self._keeper = keeper
        self._limits = limits
        self._seen: dict[str, tuple[Pointer, float]] = {}
        self._timer: Timer | None = None

    def start(self) -> None:
        self._save(lambda pointers: started(pointers, self._limits.crash_starts))
        for name, model in self._keeper.current.models.items():
            if model.refused_reason.startswith(_BLAME):
                _log.warning("%s: version %d: %s", name, model.refused.version if model.refused else 0, _BLAME)
        self._look()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._save(stopped)

    def _save(self, change: Change) -> None:
        """Now. A disk that does not take it keeps nobody from serving."""
        try:
            self._keeper.save_now(change)
        except OSError as error:
            _log.error("starts cannot be counted: %s; check this device's disk", error)

    def _look(self) -> None:
        now = self._loop.now()
        serving = {name: model.serving for name, model in self._keeper.current.models.items() if model.serving}
        self._seen = {name: self._since(name, pointer, now) for name, pointer in serving.items() if not pointer.steady}
        proved = {
            name: pointer.wanted for name, (pointer, since) in self._seen.items() if now - since >= self._limits.steady
        }
        if proved:
            self._keeper.save(lambda pointers: steady(pointers, proved), self._noted)
        self._timer = self._loop.call_later(self._limits.steady / _LOOKS, self._look)

    def _since(self, name: str, pointer: Pointer, now: float) -> tuple[Pointer, float]:
        before = self._seen.get(name)
        return before if before is not None and before[0].wanted == pointer.wanted else (pointer, now)

    def _noted(self, error: Exception | None) -> None:
        if error is not None:
            _log.error("the state cannot be saved: %s; check this device's disk", error)


def _each(pointers: Pointers, change: Callable[[ModelPointers], ModelPointers]) -> Pointers:
    """The very same object where nothing changes: then nothing is written."""
    models = {name: change(model) for name, model in pointers.models.items()}
    same = all(models[name] is model for name, model in pointers.models.items())
    return pointers if same else msgspec.structs.replace(pointers, models=models)


def _start_of(model: ModelPointers, most: int) -> ModelPointers:
    serving, candidate = model.serving, model.candidate
    if candidate is not None and model.tries > most and not _serves(model, candidate):
        return _given_up(model, candidate, model.tries, serving, model.previous)
    if serving is None or serving.steady:
        return model
    if serving.starts >= most and model.previous is not None:
        return _given_up(model, serving.wanted, serving.starts, model.previous, None)
    return _with_serving(model, starts=serving.starts + 1)


def _given_up(
    model: ModelPointers, lost: DesiredModel, times: int, serving: Pointer | None, previous: Pointer | None
) -> ModelPointers:
    reason = f"{_BLAME} {times} times while this version was at work; it is not tried again in this generation"
    return msgspec.structs.replace(
        model, serving=serving, previous=previous, candidate=None, tries=0,
        refused=lost, refused_state="failed", refused_reason=reason, refused_cause="",
    )  # fmt: skip


def _with_serving(model: ModelPointers, **changes: object) -> ModelPointers:
    """The very same object where its serving version is proved, or is so already."""
    if model.serving is None or model.serving.steady:
        return model
    serving = msgspec.structs.replace(model.serving, **changes)
    return model if serving == model.serving else msgspec.structs.replace(model, serving=serving)


def _serves(model: ModelPointers, wanted: DesiredModel | None) -> bool:
    return model.serving is not None and model.serving.wanted == wanted
