"""Named fault points: places where a test may break the program. Inert unless the environment arms them.

`LEPTA_FAULTS="blobs.after_rename=kill,fetch.write=ENOSPC@3,worker.invoke=delay:200"` kills the process at the first
pass, raises OSError(ENOSPC) at the third pass, and sleeps 200 ms at every pass.
"""

from __future__ import annotations

import errno
import os
import signal
import time

_ENVIRONMENT = "LEPTA_FAULTS"


class FaultSpecError(ValueError):
    """LEPTA_FAULTS cannot be read."""


class _Armed:
    def __init__(self, action: str, on_pass: int | None) -> None:
        self.action = action
        self.on_pass = on_pass
        self.passes = 0

    def hit(self) -> None:
        self.passes += 1
        if self.on_pass is not None and self.passes != self.on_pass:
            return
        if self.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.action.startswith("delay:"):
            time.sleep(float(self.action.removeprefix("delay:")) / 1000)
        else:
            code: int = getattr(errno, self.action)
            raise OSError(code, os.strerror(code))


def _parse(text: str) -> dict[str, _Armed]:
    armed = {}
    for entry in filter(None, text.split(",")):
        point, _, action = entry.partition("=")
        action, _, on_pass = action.partition("@")
        known = action == "kill" or action.startswith("delay:") or action in errno.errorcode.values()
        if not point or not known or (on_pass and not on_pass.isdecimal()):
            raise FaultSpecError(f"{_ENVIRONMENT}: {entry!r} is not POINT=kill|delay:MS|ENAME[@PASS]")
        armed[point] = _Armed(action, int(on_pass) if on_pass else None)
    return armed


_points = _parse(os.environ.get(_ENVIRONMENT, ""))


def fault(point: str) -> None:
    """Do here what the environment asks for `point`; nothing if it asks for nothing."""
    if _points and point in _points:
        _points[point].hit()
