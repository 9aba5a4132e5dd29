"""PURE: whether the service manager may be told that this agent is alive. Answers decide, never a timer alone.

A window is a third of what the manager waits. At its end every model with a live worker must have answered something
since the window began; who did not is asked to run once, and only when all have answered is the manager told. A model
whose worker is being replaced is the agent's own business, unless nothing answers at all for too long.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Model(NamedTuple):
    """What a model's workers did."""

    live: bool
    """It has a worker that is loaded and should answer."""
    answers: int
    """Since the start of the agent."""


class Watch(NamedTuple):
    """What was seen at the last beat, and who must still answer before the manager is told."""

    seen: Mapping[str, int] = {}
    missing: frozenset[str] = frozenset()
    dark_since: float | None = None
    """Since when models are wanted here and none has a live worker."""
    told: bool = False


class Verdict(NamedTuple):
    watch: Watch
    alive: bool
    """Tell the manager now."""
    ask: tuple[str, ...] = ()
    """Models to be run once."""


def beat(watch: Watch, models: Mapping[str, Model], sound: bool, now: float, patience: float) -> Verdict:
    """A window ends and the next begins. `sound`: without any model, is the agent fit to take one?

    `patience`: seconds that the agent may take to bring at least one model back.
    """
    live = {name for name, model in models.items() if model.live}
    dark = now if watch.dark_since is None else watch.dark_since
    dark_since = dark if models and not live else None
    # Who still owes an answer of the window before goes on owing it; who was not there then owes one now.
    silent = frozenset(name for name in live if models[name].answers <= watch.seen.get(name, 0))
    seen = {name: model.answers for name, model in models.items()}
    fresh = Watch(seen, silent, dark_since)
    if silent:
        return Verdict(fresh, False, tuple(sorted(silent)))
    if not models:
        alive = sound
    elif not live:
        alive = now - dark < patience
    else:
        alive = True
    return Verdict(fresh._replace(told=alive), alive)


def answered(watch: Watch, models: Mapping[str, Model]) -> Verdict:
    """Somebody who was asked has answered, or has gone."""
    missing = frozenset(
        name
        for name in watch.missing
        if name in models and models[name].live and models[name].answers <= watch.seen.get(name, 0)
    )
    anybody = any(model.live for model in models.values())
    alive = bool(watch.missing) and not missing and anybody and not watch.told
    return Verdict(watch._replace(missing=missing, told=watch.told or alive), alive)
