"""What can go wrong in a run, and whose fault it is."""

from __future__ import annotations

from typing import Literal

Who = Literal["user", "us"]


class OptimizerError(Exception):
    """A run that cannot go on. The message is one sentence: what is wrong and what to do."""

    who: Who = "us"


class RefusedError(OptimizerError):
    """The user's model, data, profile or request cannot be used."""

    who: Who = "user"


class CancelledError(RefusedError):
    """The user cancelled the run."""


class StepError(OptimizerError):
    """A step failed for reasons of its own: a crash, a limit, or a mistake of ours."""

    def __init__(self, message: str, who: Who = "us") -> None:
        super().__init__(message)
        self.who = who
