"""What a prediction says of one class."""

from __future__ import annotations

import msgspec

from agent.contract.fields import Count, Text

MAX_SCORES = 1024
"""Numbers of an output that travel with a prediction."""


class Guess(msgspec.Struct, frozen=True, kw_only=True):
    """`number` counts classes from 0."""

    label: Text
    score: float
    number: Count
