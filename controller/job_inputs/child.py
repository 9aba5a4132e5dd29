"""Lays an input out in a process of its own: what users upload is parsed apart from the controller, whose memory and
turns it does not touch. JSON comes in, JSON goes out."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec

from controller.errors import LeptaError, Who
from controller.job_inputs import kinds
from controller.job_inputs.source import Layout
from controller.job_inputs.wanted import Wanted


class Order(msgspec.Struct, frozen=True):
    path: str
    folder: str
    limit: int
    wanted: Wanted


class Outcome(msgspec.Struct, frozen=True):
    """A layout, or why there is none."""

    layout: Layout | None = None
    message: str = ""
    hint: str | None = None
    who: Who = "user"


def main() -> int:
    # Live inference goes first.
    os.nice(10)
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    try:
        outcome = Outcome(kinds.lay_out(Path(order.path), order.wanted, Path(order.folder), order.limit))
    except LeptaError as error:
        outcome = Outcome(None, error.message, error.hint, error.who)
    except OSError as error:
        outcome = Outcome(None, f"the rows cannot be laid out: {error.strerror or error}", "check the disk", "us")
    sys.stdout.buffer.write(msgspec.json.encode(outcome))
    return 0
