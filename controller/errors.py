"""What can go wrong in the controller: who is at fault, what to do, and which HTTP status says so."""

from __future__ import annotations

from typing import Literal

Who = Literal["user", "device", "network", "us"]


class LeptaError(Exception):
    """One sentence about what is wrong; `hint` says what to do; `who` is at fault; `status` is the HTTP status."""

    def __init__(self, message: str, hint: str | None = None, *, who: Who | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.headers: dict[str, str] = {}
        """That the answer over HTTP carries too."""
        self.status, usual = _row(type(self))
        self.who: Who = who or usual


class UserError(LeptaError):
    """Understood, but it cannot work: wrong labels, unknown profile, a setting that makes no sense."""


class BadRequest(LeptaError):
    """Not understood: broken JSON, wrong tensor shape."""


class Unauthorized(LeptaError):
    """No token, or a wrong one."""


class Forbidden(LeptaError):
    """Known, but not allowed: a used claim, a foreign Host or Origin."""


class NotFound(LeptaError):
    """Nothing has that name."""


class Conflict(LeptaError):
    """It would contradict what is there: a name taken, a port in use, a run that ended."""


class TooLarge(LeptaError):
    """More bytes than a limit allows."""


class Internal(LeptaError):
    """Our fault, or this machine's: disk full, database damaged, a child process that died."""


class DeviceError(LeptaError):
    """A device could not do it."""


class Busy(LeptaError):
    """Not now: too much waits, or nobody can answer; it may be worth another try after `retry_s` seconds."""

    def __init__(self, message: str, hint: str | None = None, *, retry_s: float = 1.0) -> None:
        super().__init__(message, hint)
        self.retry_s = retry_s


class Preparing(LeptaError):
    """Not yet: what the caller asked for began what it needs, which goes on. `model` names what is being prepared."""

    def __init__(self, message: str, model: str) -> None:
        super().__init__(message, f"ask again when it is ready: lepta model prepare {model}")
        self.model = model


class TooMany(LeptaError):
    """More requests than a caller may send; after `retry_s` seconds he may go on."""

    def __init__(self, message: str, hint: str | None = None, *, retry_s: float = 1.0) -> None:
        super().__init__(message, hint)
        self.retry_s = retry_s


class Timeout(LeptaError):
    """Nobody answered in time."""


# The one table of statuses and faults; a subclass has its parent's row. 202 is no fault: the work is under way.
TABLE: dict[type[LeptaError], tuple[int, Who]] = {
    UserError: (422, "user"),
    BadRequest: (400, "user"),
    Unauthorized: (401, "user"),
    Forbidden: (403, "user"),
    NotFound: (404, "user"),
    Conflict: (409, "user"),
    TooLarge: (413, "user"),
    Internal: (500, "us"),
    DeviceError: (502, "device"),
    TooMany: (429, "user"),
    Busy: (503, "us"),
    Preparing: (202, "us"),
    Timeout: (504, "network"),
}


def _row(kind: type[LeptaError]) -> tuple[int, Who]:
    return next((TABLE[base] for base in kind.__mro__ if base in TABLE), TABLE[Internal])
