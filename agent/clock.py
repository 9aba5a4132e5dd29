"""What time it is on a device whose clock may have started in 1970.

Many boards have no battery: until somebody tells them the time, their clock lies years back. The agent therefore keeps
a floor: a time that certainly has passed (this program was written, our certificate was signed, a server's certificate
that we verified became valid, the clock once showed it). A clock that lies more than a day below the floor is wrong.
While it is, TLS checks who signed a certificate and for which name, but not its times: nothing here could tell an
expired one from a good one, and refusing every certificate would only keep the device off the fleet for good. The
broker and the controller go on checking ours by their own clocks. A clock that runs ahead cannot be told from the
truth; it never lifts the floor past the end of our own certificate, and each renewal puts the floor back to what the
controller's clock says.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from agent.contract.signing import write_secret

FILE = "clock"
RELEASED = 1_790_000_000.0
"""Seconds since 1970: this program is not older."""
_SAVE_EVERY_S = 3600.0
_SLACK_S = 86400.0
"""Clocks are set back a little all the time, and drift; the controller dates certificates a day back for that."""
_OFFSET = "LEPTA_CLOCK_OFFSET_S"
_SET = os.environ.get(_OFFSET, "")


def _wall() -> float:
    """The machine's clock. Tests put it wrong for one process by an offset in seconds in the environment, or in a file
    that is named there by its full path: then it jumps when the file changes."""
    if not _SET:
        return time.time()
    return time.time() + float(Path(_SET).read_text(encoding="ascii") if _SET.startswith("/") else _SET)


class Clock:
    """Wall time in seconds since 1970, never before what has certainly passed. Safe to use from several threads.

    `folder` keeps the floor across restarts; None keeps it nowhere.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        until: float = 0.0,
        wall: Callable[[], float] = _wall,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = None if folder is None else folder / FILE
        self._until = until
        self._wall = wall
        self._monotonic = monotonic
        saved = self._load()
        self._floor = max(RELEASED, saved)
        self._at = self._saved_at = monotonic()
        self._saved = saved

    @property
    def wrong(self) -> bool:
        """Does the machine's clock lie well below what has certainly passed?"""
        return self._wall() < self._passed() - _SLACK_S

    def now(self) -> float:
        """The best that is known: the machine's clock, or the floor and what went by since it was set."""
        return max(self._wall(), self._passed())

    def has_passed(self, moment: float) -> bool:
        """Is it later than `moment`? Of a clock that is certainly wrong only what has certainly passed counts: one that
        lies behind, or past the end of the certificate with which the controller lets us in today."""
        if moment <= self._passed():
            return True
        wall = self._wall()
        credible = not self.wrong and (not self._until or wall <= self._until)
        return credible and moment <= wall

    def at_least(self, moment: float) -> None:
        """`moment` has passed: somebody whom we trust says so."""
        if moment > self._passed():
            self._set(moment)

    def certified(self, not_before: float, not_after: float) -> None:
        """The controller signed a certificate for us: its clock counts more than anything seen here before."""
        self._until = not_after
        self._set(max(RELEASED, not_before))

    def note(self) -> None:
        """Remember how late it is; on disk at most once an hour."""
        wall = self._wall()
        if wall > self._passed() and (wall <= self._until or not self._until):
            self._set(wall)
        if self._monotonic() - self._saved_at >= _SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Write the floor down now. A disk that takes no file costs the floor only, so that is no error."""
        passed = self._passed()
        self._saved_at = self._monotonic()
        if self._path is not None and passed != self._saved:
            with contextlib.suppress(OSError):
                write_secret(self._path, f"{passed:.0f}\n")
                self._saved = passed

    def _passed(self) -> float:
        return self._floor + (self._monotonic() - self._at)

    def _set(self, moment: float) -> None:
        self._floor, self._at = moment, self._monotonic()

    def _load(self) -> float:
        try:
            return float(self._path.read_text(encoding="ascii")) if self._path is not None else 0.0
        except (OSError, ValueError):
            return 0.0
