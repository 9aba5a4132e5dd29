"""A history of leases, results and swaps as JSON Lines, for checkers; off unless the environment names a file.

`LEPTA_RECORD=FILE`: each line is `{"at": seconds on the monotonic clock, "event": ..., ...}` in the order of deciding.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import msgspec

ENVIRONMENT = "LEPTA_RECORD"


class Recorder(Protocol):
    def record(self, at: float, event: str, **values: object) -> None: ...


class Silence:
    """Records nothing."""

    def record(self, at: float, event: str, **values: object) -> None:
        return


class JsonLines:
    """Appends to a file; each line is handed to the system at once, so a kill of this process loses none."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def record(self, at: float, event: str, **values: object) -> None:
        self._file.write(msgspec.json.encode({"at": at, "event": event, **values}) + b"\n")


def from_environment() -> Recorder:
    path = os.environ.get(ENVIRONMENT)
    return JsonLines(Path(path)) if path else Silence()
