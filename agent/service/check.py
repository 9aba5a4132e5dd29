"""What one look of the doctor found."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Check(NamedTuple):
    verdict: Literal["ok", "warning", "failed"]
    what: str
    found: str
    cure: str = ""
    """What to do; empty where nothing is to be done."""


def ok(what: str, found: str) -> Check:
    return Check("ok", what, found)


def warning(what: str, found: str, cure: str) -> Check:
    return Check("warning", what, found, cure)


def failed(what: str, found: str, cure: str) -> Check:
    return Check("failed", what, found, cure)
