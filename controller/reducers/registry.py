"""Which reducers there are: ours, and those that other distributions offer under `lepta.reducers`.

What is installed beside the controller runs inside it: an entry point is as trusted as the controller itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

import msgspec

from controller.errors import Internal, LeptaError, UserError
from controller.reducers import score, stats, top, vote
from controller.reducers.face import About, Reducer

GROUP = "lepta.reducers"
Factory = Callable[[About, Mapping[str, Any]], Reducer[Any]]


def make(name: str, about: About, settings: Mapping[str, Any]) -> Reducer[Any]:
    """Raises UserError where there is none of that name, or its settings or the model do not suit it."""
    factory = OURS.get(name) or _foreign(name)
    try:
        return factory(about, settings)
    except LeptaError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"the reducer {name} does not take these settings: {error}", "see docs/guides/jobs.md"
        ) from error


def names() -> list[str]:
    return sorted({*OURS, *(point.name for point in metadata.entry_points(group=GROUP))})


def _foreign(name: str) -> Factory:
    for point in metadata.entry_points(group=GROUP):
        if point.name == name:
            try:
                factory: Factory = point.load()
            except Exception as error:
                raise Internal(f"the reducer {name} of {point.value} cannot be loaded: {error}") from error
            return factory
    raise UserError(f"no reducer is called {name[:40]!r}; there are {', '.join(names())}")


def _ours(kind: Callable[[About, Any], Reducer[Any]], settings: type[msgspec.Struct]) -> Factory:
    def factory(about: About, given: Mapping[str, Any]) -> Reducer[Any]:
        return kind(about, msgspec.convert(dict(given), settings))

    return factory


OURS: dict[str, Factory] = {
    "score": _ours(score.Score, score.Settings),
    "stats": _ours(stats.Stats, stats.Settings),
    "topk": _ours(top.TopK, top.Settings),
    "vote": _ours(vote.Vote, vote.Settings),
}
