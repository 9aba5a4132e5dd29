"""A job's reducer at work: it takes accepted results in while others are computed, and writes the result at the end.

`catch_up` and `write` are for threads.
"""

from __future__ import annotations

import math
import shutil
import threading
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from controller import canaries, records
from controller.errors import LeptaError, UserError
from controller.job_results import Entry, Results
from controller.job_tables import Table, write_npz, write_parquet
from controller.reducers.face import Reduced, Reducer
from controller.shards import Shard


class Reduction:
    """`scratch` is a folder of this job alone; `limit`: bytes that the result's columns may take in it."""

    def __init__(self, job: records.Job, reducer: Reducer[Any], results: Results, scratch: Path, limit: int) -> None:
        self._job, self._name = job.id, job.reduce
        self._rows, self._canaries = job.rows, job.canaries
        self._tally = canaries.Tally()
        self._reducer = reducer
        self._results = results
        self._scratch = scratch
        self._limit = limit
        self._state = reducer.empty()
        self._alone = threading.Lock()
        self.taken = 0
        """Results that the state holds."""

    def catch_up(self, most: int) -> None:
        """Take in accepted results up to the `most`-th; they must be on the disk."""
        with self._alone:
            self._catch_up(most)

    def write(self, kind: str, ranges: list[Shard]) -> tuple[Path, Reduced]:
        """All that was accepted, as a file of this kind in `scratch`; `ranges` follow one another over all rows."""
        with self._alone:
            return self._write(kind, ranges)

    def _catch_up(self, most: int) -> None:
        entries = self._results.entries(self.taken)[: most - self.taken]
        for entry, rows in zip(entries, self._results.read(entries), strict=True):
            self._state = self._guarded(partial(self._reducer.add, self._state, rows))
            self.taken += 1
            if self._canaries:
                hidden = canaries.chosen(self._job, entry.shard, self._canaries, self._rows)
                self._tally.add(rows.device, rows.artifact, hidden, rows.hidden)

    def _write(self, kind: str, ranges: list[Shard]) -> tuple[Path, Reduced]:
        self._catch_up(len(self._results))
        finished = self._guarded(lambda: self._reducer.finish(self._state))
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir(parents=True)
        table = Table(self._scratch, self._limit)
        if finished.per_row:
            by_first: dict[int, list[Entry]] = defaultdict(list)
            for entry in sorted(self._results.entries(), key=lambda entry: (entry.first, entry.replica)):
                by_first[entry.first].append(entry)
            for each in ranges:
                rows = list(self._results.read(by_first[each.first]))
                table.add(self._guarded(partial(finished.columns, each.first, each.last, rows)))
        reduced = self._guarded(lambda: _plain(finished.result()))
        for device, share in self._tally.disagreement().items():
            reduced.metrics[f"canary_disagreement:{device}"] = share
        path = self._scratch / f"result.{kind}"
        names = dict(finished.names)
        if kind == "parquet":
            write_parquet(path, table.columns(), names, reduced.arrays)
        else:
            write_npz(path, table.columns(), names, reduced.arrays)
        return path, reduced

    def remove(self) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _guarded(self, act: Callable[[], Any]) -> Any:
        """A reducer may be anybody's: what it raises is told in its name."""
        try:
            return act()
        except (LeptaError, OSError):
            raise
        except Exception as error:
            raise UserError(f"the reducer {self._name} broke: {type(error).__name__}: {error}") from error


def _plain(reduced: Reduced) -> Reduced:
    """Metrics as JSON takes them: what is no number is left out."""
    numbers = {str(name): float(value) for name, value in reduced.metrics.items()}
    return Reduced({name: value for name, value in numbers.items() if math.isfinite(value)}, reduced.arrays)
