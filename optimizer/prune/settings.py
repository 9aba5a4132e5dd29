"""How a model is pruned: settings only, so that a recipe is read without TensorFlow."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from optimizer.tuning import Tuning

RATIOS = (0.25, 0.5, 0.75, 0.9)


class Least(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`channels`: how many every axis keeps; `multiple`: axes of a group keep a multiple of this where they can."""

    channels: Annotated[int, Meta(ge=1)] = 1
    multiple: Annotated[int, Meta(ge=1)] = 1


LEAST = Least()


class Pruning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to prune. `budget`: the share of parameters (or MACs) that stays, above 0, at most 1."""

    budget: Annotated[float, Meta(gt=0, le=1)] = 0.5
    of: Literal["parameters", "macs"] = "parameters"
    rounds: Annotated[int, Meta(ge=1, le=20)] = 3
    importance: Literal["weights", "scales", "loss"] = "loss"
    ratios: tuple[Annotated[float, Meta(gt=0, le=1)], ...] = RATIOS
    """At which every group is pruned alone to see what it loses."""
    least: Least = LEAST
    blocks: Annotated[float, Meta(ge=0)] = 0.0
    """Whole residual branches go first, while the loss on check data rises by at most this; 0 leaves them all."""
    rows: Annotated[int, Meta(ge=1)] = 2048
    """Of training data that score channels, and of check data that measure groups."""
    between: Tuning = Tuning(epochs=2, batch=128, temperature=2.0, dropout=0.0)
    """Fine-tuning after every round but the last; its loss is that of `after`."""
    after: Tuning = Tuning(epochs=20, batch=128, rate=3e-3, decay=1e-3, temperature=2.0, patience=10, dropout=0.0)
