"""What every kind of source has: named inputs and outputs; and the error of one that cannot be used."""

from __future__ import annotations

from typing import NamedTuple

from optimizer.errors import RefusedError


class InputSpec(NamedTuple):
    """An input of the source model; `shape` without rows."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class SourceError(RefusedError):
    """A model file that cannot be used."""


def first_line(error: Exception) -> str:
    """What a library's error says, without its pages of context."""
    return str(error).strip().split("\n", 1)[0][:300] or type(error).__name__
