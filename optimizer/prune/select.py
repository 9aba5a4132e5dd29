"""Which channels stay, from their scores and a share per group. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from optimizer.prune.coupling import Coupling, Group, Kept
from optimizer.prune.labels import Labels
from optimizer.prune.settings import LEAST, Least

Scores = NDArray[np.float64]
"""By class of channels: how much it matters."""


def select(coupling: Coupling, scores: Scores, ratios: Mapping[str, float], least: Least = LEAST) -> Kept:
    """What stays when every group loses its ratio (0 to 1, by its name) of free channels, the lowest scores first.

    Every axis keeps at least one channel. Raises ValueError for a ratio that is none, KeyError for an unknown group.
    """
    kept = coupling.everything()
    groups = {group.name: group for group in coupling.groups}
    for name, ratio in ratios.items():
        if not 0 <= ratio <= 1:
            raise ValueError(f"ratio {ratio} of {name} is not between 0 and 1")
        group = groups[name]
        kept[removed_of(group, scores, wanted(group, ratio, least.multiple), least.channels)] = False
    return kept


def wanted(group: Group, ratio: float, multiple: int) -> int:
    """How many channels go: the ratio of the free ones, fewer where a multiple is to be kept."""
    total, count = len(group.classes), int(np.count_nonzero(group.free) * ratio + 1e-9)
    staying = -(-(total - count) // multiple) * multiple
    return max(0, total - staying) if count else 0


def removed_of(group: Group, scores: Scores, count: int, least: int) -> Labels:
    """The `count` lowest free classes of a group, fewer where an axis would keep less than `least`."""
    room = {name: len(np.unique(labels)) - least for name, labels in group.axes.items()}
    axes_of: dict[int, list[str]] = {}
    for name, labels in group.axes.items():
        for one in np.unique(labels).tolist():
            axes_of.setdefault(one, []).append(name)
    free = group.classes[group.free]
    removed: list[int] = []
    for one in free[np.argsort(scores[free], kind="stable")].tolist():
        if len(removed) >= count:
            break
        if all(room[name] > 0 for name in axes_of[one]):
            removed.append(one)
            for name in axes_of[one]:
                room[name] -= 1
    return np.array(removed, np.int64)
