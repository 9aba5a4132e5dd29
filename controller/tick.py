"""One decision of the fleet's loop: what it saves in one commit, and what it does once that is saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from controller.writes import Write


@dataclass
class Tick:
    """`now` in monotonic seconds decides; `wall` in seconds since 1970 is for people."""

    now: float
    wall: float
    writes: list[Write[Any]] = field(default_factory=list)
    files: list[BinaryIO] = field(default_factory=list)
    actions: list[Callable[[], object]] = field(default_factory=list)

    def save(self, *writes: Write[Any]) -> None:
        self.writes.extend(writes)

    def flush(self, file: BinaryIO) -> None:
        """What was written to `file` must be on disk before the commit that refers to it."""
        if file not in self.files:
            self.files.append(file)

    def then(self, action: Callable[[], object]) -> None:
        """Run `action` after the commit. It only sends; whatever it starts reports back through the inbox."""
        self.actions.append(action)
