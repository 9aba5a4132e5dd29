"""Finished requests on their way into the log: held in a bounded buffer, written a batch at a time.

A request never waits for this: it leaves its trace here, and the database's thread encodes and writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from operator import attrgetter
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, delete, select

from controller import records
from controller.inference import Trace
from controller.settings import Limits
from controller.tables import TABLES
from controller.tick import Tick
from controller.writes import Write

_REQUESTS = TABLES[records.Request]
# Of a trace, in this order, before `steps`.
_TOLD = ("id", "trace_id", "model", "version", "artifact", "device", "runtime", "state", "attempts", "received_at")
# As text for the driver: SQLAlchemy would spend more on a batch of rows than SQLite.
_INSERT = f"INSERT OR REPLACE INTO {_REQUESTS.name} ({', '.join(_TOLD)}, steps) VALUES (?{', ?' * len(_TOLD)})"
_told_of = attrgetter(*_TOLD)


class _Finished(NamedTuple):
    """Nothing of a request's tensors: these may be large."""

    told: tuple[object, ...]
    steps: list[tuple[str, float, str]]
    kept: str
    """What becomes of its answer."""
    since: float


class RequestLog:
    """Owned by the loop."""

    def __init__(self, limits: Limits) -> None:
        self._keep = limits.requests_kept
        self._waiting: list[_Finished] = []

    def __contains__(self, request_id: object) -> bool:
        """Does this request wait to be written?"""
        return any(finished.told[0] == request_id for finished in self._waiting)

    def add(self, trace: Trace, kept: str, now: float) -> None:
        """Keep a finished request; the oldest go when the disk does not keep up. `kept`: what becomes of its answer."""
        self._waiting.append(_Finished(_told_of(trace), trace.steps, kept, now))
        if len(self._waiting) > self._keep:
            del self._waiting[: self._keep // 10]

    def flush(self, tick: Tick) -> None:
        """Hand what waits to the writer."""
        if self._waiting:
            batch = tuple(self._waiting)
            tick.save(_write(batch, tick.now, self._keep))
            tick.then(lambda: self._forget(len(batch)))

    def _forget(self, count: int) -> None:
        del self._waiting[:count]


def _write(batch: Sequence[_Finished], now: float, keep: int) -> Write[None]:
    """Insert them, and drop the oldest of the log beyond `keep`."""

    def write(connection: Connection) -> None:
        newest = islice(batch, max(0, len(batch) - keep), None)
        connection.exec_driver_sql(_INSERT, [_row(finished, now, len(batch)) for finished in newest])
        at = _REQUESTS.c.received_at
        edge = connection.execute(select(at).order_by(at.desc()).offset(keep).limit(1)).scalar()
        if edge is not None:
            connection.execute(delete(_REQUESTS).where(at <= edge))

    return write


def _row(finished: _Finished, now: float, batch: int) -> tuple[object, ...]:
    # The flow's last step: how long the answer waited in memory until it was written.
    store = ("store", (now - finished.since) * 1000, f"written with {batch} in one batch; {finished.kept}")
    steps = [{"step": step, "ms": ms, "detail": detail} for step, ms, detail in (*finished.steps, store)]
    return (*finished.told, msgspec.json.encode(steps).decode())
