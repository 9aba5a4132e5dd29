"""What a prediction says of one class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from agent.contract.fields import Count, Text

MAX_SCORES = 1024
"""Numbers of an output that travel with a prediction."""


class Guess(msgspec.Struct, frozen=True, kw_only=True):
    """`number` counts classes from 0."""

    label: Text
    score: float
    number: Count


def best_of(scores: Any, labels: Sequence[str], most: int) -> tuple[Guess, ...]:
    """The `most` best classes of one row of scores, a numpy array; of equal ones the first class comes first."""
    best = (-scores).argsort(kind="stable")[:most].tolist()
    return tuple(Guess(label=label_of(n, labels), score=float(scores[n]), number=n) for n in best)


def label_of(number: int, labels: Sequence[str]) -> str:
    return labels[number] if number < len(labels) else str(number)
