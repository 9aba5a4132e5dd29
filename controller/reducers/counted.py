"""A vote that is over: who was elected, who disagreed, and what weighing the votes changes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from controller.reducers.calibration import Confidences
from controller.reducers.face import About, Array, Reduced, Rows, ids_of
from controller.reducers.tally import Ballot, Count, count, distinct


class Counted:
    """`held`: rows on which reliability is measured, (rows,) bool, None without labels."""

    per_row = True

    def __init__(
        self,
        about: About,
        classes: int,
        ballots: dict[tuple[int, int], Ballot],
        held: Array | None,
        *,
        weighted: bool,
    ) -> None:
        self.names: dict[str, list[str]] = {}
        self._about = about
        self._classes = classes
        self._held = held
        self._groups: dict[int, list[Ballot]] = defaultdict(list)
        for first, _ in sorted(ballots):
            self._groups[first] = distinct([b for (start, _), b in ballots.items() if start == first])
        self._weighted = weighted
        self._before, self._after = Confidences(), Confidences()
        self._against: dict[str, int] = defaultdict(int)
        self._other_bits: dict[str, int] = defaultdict(int)
        self._votes: dict[str, int] = defaultdict(int)
        self._contested = self._changed = self._single = 0
        self._right: dict[str, int] = defaultdict(int)
        self._asked: dict[str, int] = defaultdict(int)
        for first, group in self._groups.items():
            self._look(first, group)
        self._reliability = {name: self._rate(name) for name in sorted(self._votes)}

    def columns(self, first: int, last: int, results: Sequence[Rows]) -> dict[str, Array]:
        rows, group, labels = last - first, self._groups.get(first), self._about.labels
        columns: dict[str, Array] = {"id": ids_of(self._about, first, last)}
        if group:
            plain = count(group, self._classes, None)
            elected = count(group, self._classes, self._reliability) if self._weighted else plain
            self._judge(first, plain, elected)
            columns |= {
                "label": elected.labels,
                "confidence": elected.confidence.astype(np.float32),
                "votes": np.full(rows, elected.votes, np.int32),
                "votes_for": elected.votes_for.astype(np.int32),
            }
        else:
            columns |= {
                "label": np.full(rows, -1, np.int32),
                "confidence": np.full(rows, np.nan, np.float32),
                "votes": np.zeros(rows, np.int32),
                "votes_for": np.zeros(rows, np.int32),
            }
        if labels is not None:
            columns["truth"] = labels[first:last]
        return columns

    def result(self) -> Reduced:
        devices = sorted(self._votes)
        computed = sum(group[0].last - first for first, group in self._groups.items())
        metrics = {
            "rows": float(self._about.rows),
            "rows_computed": float(computed),
            "rows_contested": float(self._contested),
            "rows_with_one_vote": float(self._single),
        }
        metrics |= {f"disagreement:{name}": self._against[name] / self._votes[name] for name in devices}
        if self._after.rows:
            metrics["accuracy"] = self._after.accuracy
            metrics["ece"] = self._after.ece
        if self._weighted:
            metrics["rows_changed"] = float(self._changed)
            metrics |= {f"reliability:{name}": self._reliability[name] for name in devices}
            if self._after.rows:
                metrics |= {"accuracy_before": self._before.accuracy, "accuracy_after": self._after.accuracy}
                metrics |= {"ece_before": self._before.ece, "ece_after": self._after.ece}
        arrays = {
            "devices": np.array(devices, np.str_),
            "votes_by_device": np.array([self._votes[name] for name in devices], np.int64),
            "against_by_device": np.array([self._against[name] for name in devices], np.int64),
            "other_bits_by_device": np.array([self._other_bits[name] for name in devices], np.int64),
        }
        return Reduced(metrics, arrays)

    def _look(self, first: int, group: list[Ballot]) -> None:
        """Every voter against the plain majority, and against those who hold the same artifact, bit by bit."""
        plain = count(group, self._classes, None)
        rows = slice(first, group[0].last)
        self._contested += int((plain.votes_for < plain.votes).sum())
        self._single += len(plain.labels) if plain.votes == 1 else 0
        usual = _usual_prints(group)
        judged, truth = self._judged_by(rows, plain)
        for ballot in group:
            self._votes[ballot.device] += len(plain.labels)
            self._against[ballot.device] += int((ballot.labels != plain.labels).sum())
            self._other_bits[ballot.device] += int((ballot.prints != usual[ballot.artifact]).sum())
            self._asked[ballot.device] += int(judged.sum())
            self._right[ballot.device] += int((ballot.labels == truth)[judged].sum())

    def _judged_by(self, rows: slice, plain: Count) -> tuple[Array, Array]:
        """On which rows reliability is measured, and by which labels."""
        if self._held is not None and self._about.labels is not None:
            return self._held[rows], self._about.labels[rows]
        return np.full(len(plain.labels), plain.votes > 1), plain.labels

    def _rate(self, name: str) -> float:
        """How often it is right; Laplace's rule keeps it from 0 and 1."""
        return (self._right[name] + 1) / (self._asked[name] + 2)

    def _judge(self, first: int, plain: Count, elected: Count) -> None:
        self._changed += int((plain.labels != elected.labels).sum())
        labels, held = self._about.labels, self._held
        if labels is None or held is None:
            return
        rows = slice(first, first + len(plain.labels))
        judged = (labels[rows] >= 0) & ~held[rows]
        for where, counted in ((self._before, plain), (self._after, elected)):
            where.add(counted.confidence[judged], (counted.labels == labels[rows])[judged])


def _usual_prints(group: list[Ballot]) -> dict[str, Array]:
    """Of each artifact, the fingerprint that most of its holders have in a row; of equal ones the lowest."""
    usual = {}
    for artifact in sorted({ballot.artifact for ballot in group}):
        prints = np.sort(np.stack([ballot.prints for ballot in group if ballot.artifact == artifact]), axis=0)
        alike = (prints[:, np.newaxis] == prints[np.newaxis]).sum(axis=1)
        usual[artifact] = np.take_along_axis(prints, alike.argmax(axis=0)[np.newaxis], axis=0)[0]
    return usual
