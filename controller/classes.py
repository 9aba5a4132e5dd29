"""PURE: a model's scores as labels, best first. For programs; `client.answers` has the words for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from agent.contract.golden import Array
from agent.contract.predictions import best_of


def scores_of(outputs: Mapping[str, Array]) -> Array | None:
    """The output that has classes, shape (rows, classes); None where there is none."""
    return next((array for array in outputs.values() if array.ndim == 2 and array.shape[1] > 1), None)


def told(outputs: Mapping[str, Array], labels: Sequence[str], top: int) -> dict[str, Any]:
    """`predictions`: for each row the best label with its score and the `top` best of all; a row whose scores are no
    numbers has none. Or `outputs`: the numbers of a model without classes."""
    scores = scores_of(outputs)
    if scores is None:
        return {"outputs": {name: array.tolist() for name, array in outputs.items()}}
    return {"predictions": [_row(row, labels, top) for row in scores]}


def encoded(value: object) -> bytes:
    """As JSON; what is no number becomes null."""
    return msgspec.json.encode(value)


def _row(scores: Array, labels: Sequence[str], top: int) -> dict[str, Any]:
    if not np.isfinite(scores).all():
        return {"label": None, "score": None, "top": []}
    ranked = best_of(scores, labels, top)
    return {"label": ranked[0].label, "score": ranked[0].score, "top": ranked}
