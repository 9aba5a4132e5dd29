"""The report as one HTML page that needs nothing else: no network, no script."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from optimizer import words
from optimizer.plots import Bar, Kind, Point, bars, scatter
from optimizer.report import Artifact, Candidate, Layer, Parities, Report, Row
from optimizer.toml import to_toml

if TYPE_CHECKING:
    from jinja2 import Template

OURS = "Lepta"
"""How the names of our own rows in the comparison begin."""
ELSEWHERE = "not of this profile's class"
"""Stands in an artifact's `latency_host` where the host says nothing about the device."""


class Figure(NamedTuple):
    """One line of a headline: before, after, and what that is worth in words."""

    name: str
    before: str
    after: str
    worth: str


class Checked(NamedTuple):
    """A reason of a gate: kept (True), not kept (False), or only told (None)."""

    kept: bool | None
    text: str


class Worst(NamedTuple):
    layer: Layer
    worst: bool


def page(report: Report) -> str:
    """The whole page, as text in UTF-8."""
    judged = "test" if any(split.name == "test" for split in report.splits) else "validation"
    return _template().render(
        report=report,
        words=words,
        judged=judged,
        figures={artifact.profile: list(_figures(artifact, report)) for artifact in report.artifacts},
        elsewhere={artifact.profile: ELSEWHERE in artifact.latency_host for artifact in report.artifacts},
        verdicts=_verdicts(report, judged),
        checks=_checks,
        kept=_kept,
        ours=_ours,
        flags=_flags(report),
        pareto=_pareto(report),
        sizes=_sizes(report),
        latencies=_latencies(report),
        layers={profile: _worst(layers) for profile, layers in report.layers.items()},
        parities=list(_parities(report)),
        settings=to_toml(report.settings),
    )


@cache
def _template() -> Template:
    # Not at the top: who only imports the pipeline does not pay for it.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    loader = FileSystemLoader(Path(__file__).parent / "templates")
    known = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    known.filters["svg"] = Markup
    return known.get_template("report.html")


def _verdicts(report: Report, judged: str) -> dict[str, str]:
    told = {found.profile: words.verdict(found.gate, judged) for found in report.artifacts}
    return told | {found.profile: words.verdict(found.gate, judged) for found in report.rejected if found.gate}


def _checks(reasons: tuple[str, ...]) -> Iterator[Checked]:
    """Gates write "ok: ..." and "no: ..." before what they found."""
    for reason in reasons:
        start, _, rest = reason.partition(": ")
        known = {"ok": True, "no": False}.get(start)
        yield Checked(known, rest if known is not None else reason)


def _kept(reasons: tuple[str, ...]) -> Iterator[Checked]:
    """Without what was not kept: a rejected profile names that first."""
    return (check for check in _checks(reasons) if check.kept is not False)


def _figures(artifact: Artifact, report: Report) -> Iterator[Figure]:
    before, after = artifact.parameters_before, artifact.parameters
    yield Figure("Parameters", words.count(before), words.count(after), words.times(before, after, "fewer", "more"))
    before, after = artifact.macs_before, artifact.macs
    yield Figure("MACs per row", words.count(before), words.count(after), words.times(before, after, "fewer", "more"))
    before, after = artifact.bytes_before, artifact.bytes
    yield Figure("Size", words.size(before), words.size(after), words.times(before, after, "smaller", "larger"))
    slow = _float_latency(report)
    yield Figure(
        "Latency of one row",
        words.milliseconds(slow),
        words.milliseconds(artifact.latency_ms),
        words.times(slow, artifact.latency_ms, "faster", "slower"),
    )
    yield _quality(artifact)


def _quality(artifact: Artifact) -> Figure:
    before, after = artifact.accuracy_float, artifact.accuracy_int8
    if before is None or after is None:
        told = f"SQNR {words.decibels(artifact.sqnr_db)}"
        return Figure("Agrees with the float model", words.NONE, words.share(artifact.agreement), told)
    return Figure("Accuracy", words.share(before), words.share(after), words.points(after - before))


def _float_latency(report: Report) -> float | None:
    return next((row.latency_ms for row in report.rows if row.name.startswith("float")), None)


def _ours(row: Row) -> bool:
    return row.name.startswith(OURS)


def _flags(report: Report) -> dict[str, bool]:
    """Which columns and explanations have something to say."""
    return {
        "zeros": any(row.zeros for row in report.rows),
        "estimated": any(ELSEWHERE in artifact.latency_host for artifact in report.artifacts),
        "labelled": report.float_model.accuracy_validation is not None,
        "notes": any(row.note for row in report.rows),
    }


def _pareto(report: Report) -> str:
    """Accuracy over bytes; without labels, agreement with the float model."""
    labelled = report.float_model.accuracy_validation is not None
    points = [*_row_points(report, labelled), *_candidate_points(report, labelled)]
    name = "accuracy on validation" if labelled else "agreement with the float model"
    return scatter(
        "Size and quality of everything that was tried",
        f"Bytes of the file from left to right, {name} upwards. The line joins what nothing else beats in both.",
        points,
        ("size of the file, logarithmic", name),
        (words.tick, lambda value: f"{value * 100:.4g} %"),
    )


def _row_points(report: Report, labelled: bool) -> Iterator[Point]:
    """Our own rows are candidates already."""
    for row in report.rows:
        worth = row.accuracy_validation if labelled else (1.0 if row.name.startswith("float") else None)
        if worth is not None and row.bytes and not _ours(row):
            yield Point(row.bytes, worth, "row", row.name, _told(row.name, row.bytes, worth))


def _candidate_points(report: Report, labelled: bool) -> Iterator[Point]:
    """Profiles whose candidates are equal in name, size and worth share a mark."""
    several = len({candidate.profile for candidate in report.candidates}) > 1
    together: dict[tuple[int, float, Kind, str], list[str]] = {}
    for candidate in report.candidates:
        worth = candidate.accuracy_validation if labelled else _agreement(candidate)
        if worth is not None and candidate.bytes is not None:
            outcome: Kind = "chosen" if candidate.chosen else "passed" if candidate.passed else "failed"
            together.setdefault((candidate.bytes, worth, outcome, candidate.made), []).append(candidate.profile)
    for (size, worth, outcome, made), profiles in together.items():
        name = f"{', '.join(profiles)}: {made}" if several else made
        yield Point(
            size, worth, outcome, name if outcome == "chosen" else "", _told(f"{name} ({outcome})", size, worth)
        )


def _agreement(candidate: Candidate) -> float | None:
    return candidate.parities[-1].agreement if candidate.parities else None


def _told(name: str, size: int, worth: float) -> str:
    return f"{name}, {words.size(size)}, {words.share(worth)}"


def _sizes(report: Report) -> str:
    rows = [
        Bar(row.name, row.bytes, words.size(row.bytes), "ours" if _ours(row) else "other", row.packed_bytes)
        for row in report.rows
        if row.bytes is not None
    ]
    return bars("Size", "Bytes of the file; the solid part is what is left of it after compression.", rows)


def _latencies(report: Report) -> str:
    rows = [
        Bar(row.name, row.latency_ms, words.milliseconds(row.latency_ms), "ours" if _ours(row) else "other")
        for row in report.rows
        if row.latency_ms is not None
    ]
    return bars("Latency", f"Median time of one row on {report.host}.", rows)


def _worst(layers: tuple[Layer, ...]) -> list[Worst]:
    """The three that err most are marked, where there are enough for that to say something."""
    alone = any(layer.own_sqnr_db is not None for layer in layers)
    found = [layer.own_sqnr_db if alone else layer.sqnr_db for layer in layers]
    known = sorted(ratio for ratio in found if ratio is not None)
    limit = known[2] if len(known) > 5 else -math.inf
    return [Worst(layer, ratio is not None and ratio <= limit) for layer, ratio in zip(layers, found, strict=True)]


def _parities(report: Report) -> Iterator[tuple[Artifact, Parities]]:
    for artifact in report.artifacts:
        for parity in artifact.parities:
            yield artifact, parity
