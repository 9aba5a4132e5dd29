"""The demo's figures: which requests count for what, what is exact, and which promises are broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from controller.commands import root
from controller.demo.job import Ended, compare
from controller.demo.report import (
    JobFigures,
    RefusalFigures,
    Report,
    artifact_figures,
    job_figures,
    promises,
    refusal_figures,
    swap_figures,
)
from controller.demo.windows import Sample, Span, controls, during, hull, ideal_s, percentile
from controller.replies import Artifact, Gate, Job, Run, TimedSwap


def _swap(at: float, total_s: float, fetch_s: float = 0.0, outcome: str = "committed") -> TimedSwap:
    told = {"model": "m", "to_version": 2, "to_artifact": "a" * 64, "outcome": outcome}
    return msgspec.convert({**told, "at": at, "total_s": total_s, "fetch_s": fetch_s}, TimedSwap)


def test_fetching_is_no_part_of_the_swap() -> None:
    assert during([_swap(at=100.0, total_s=5.0, fetch_s=3.0)]) == [Span(98.0, 100.0)]


def test_control_windows_are_as_long_as_the_swap_and_never_touch_it() -> None:
    swaps = [Span(10, 11), Span(11.5, 12)]
    found = [(w.start, w.end) for w in controls(swaps, Span(0, 30), most=2, gap_s=0.5)]
    before, after = [(5, 6), (6.5, 7), (7.5, 8.5), (9, 9.5)], [(12.5, 13.5), (14, 14.5), (15, 16), (16.5, 17)]
    assert hull(swaps) == Span(10, 12)
    assert found == before + after


def test_control_windows_stay_inside_the_stream() -> None:
    assert controls([Span(1, 3)], Span(0, 5.5), gap_s=0.5) == [Span(3.5, 5.5)]


def test_requests_are_sorted_by_when_they_were_due() -> None:
    samples = [Sample(at=i / 10, ms=50.0 if 10 <= i / 10 < 11 else 2.0) for i in range(300)]
    figures = swap_figures(samples, [("d", _swap(at=11.0, total_s=1.0))], per_s=10)
    assert (figures.requests, figures.failed) == (300, 0)
    assert figures.requests_during == 10
    assert figures.requests_control == 60
    assert figures.control_windows == 6
    assert (figures.p99_control_ms, figures.p99_during_ms) == (2.0, 50.0)


def test_a_failed_request_is_counted_and_named_once() -> None:
    samples = [Sample(1.0, 3.0), Sample(2.0, 9.0, error="no"), Sample(3.0, 9.0, error="no")]
    figures = swap_figures(samples, [], per_s=1)
    assert figures.failed == 2
    assert figures.errors == ("no",)
    assert figures.p99_during_ms is None


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_percentiles_are_values_that_were_measured(share: float, value: float) -> None:
    assert percentile([float(i) for i in range(1, 101)], share) == value


def test_the_ideal_knows_the_moment_of_the_kill() -> None:
    assert ideal_s(1000, 200, 100, None) == 5.0
    assert ideal_s(1000, 200, 100, 2.0) == 8.0
    assert ideal_s(1000, 200, 100, 6.0) == 5.0


JOB = Job(id="j", model="m", state="done", rows=4, shards=2, moved=1, duplicates_refused=3, makespan_s=1.0)


def _figures(ids: list[int], answered: list[bool], equal: list[bool]) -> JobFigures:
    return job_figures(JOB, ids=ids, answered=answered, equal=equal, killed="d", killed_at_s=0.1, ideal_s=0.5)


def test_a_job_is_exact_when_every_row_is_there_once_and_equal() -> None:
    figures = _figures([0, 1, 2, 3], [True] * 4, [True] * 4)
    assert figures.exact
    assert (figures.lost, figures.duplicates, figures.duplicates_refused) == (0, 0, 3)


def test_rows_that_are_lost_twice_or_different_are_found() -> None:
    assert _figures([0, 1, 2], [True] * 3, [True] * 3).lost == 1
    assert _figures([0, 1, 2, 3], [True, True, True, False], [True, True, True, False]).lost == 1
    assert _figures([0, 1, 1, 3], [True] * 4, [True] * 4).duplicates == 1
    different = _figures([0, 1, 2, 3], [True] * 4, [True, True, False, True])
    assert not different.exact
    assert different.rows_equal == 3


def test_one_bit_of_one_row_makes_a_job_inexact(tmp_path: Path) -> None:
    wanted = np.linspace(0, 1, 40, dtype=np.float32).reshape(4, 10)
    found = wanted.copy()
    columns: dict[str, Any] = {"id": np.arange(4), "device": np.zeros(4, np.int32)}
    np.savez(tmp_path / "reference.npz", scores=wanted)
    np.savez(tmp_path / "good.npz", **columns | {"output:scores": found})
    found[2, 3] = np.nextafter(found[2, 3], np.float32(2))
    np.savez(tmp_path / "bad.npz", **columns | {"output:scores": found})
    ended = Ended(JOB, None)
    assert compare(ended, tmp_path / "good.npz", tmp_path / "reference.npz", "", 0.5).exact
    bad = compare(ended, tmp_path / "bad.npz", tmp_path / "reference.npz", "", 0.5)
    assert (bad.exact, bad.rows_equal) == (False, 3)


def _run(passed: bool = True) -> Run:
    artifact = Artifact(profile="x86-cpu", bytes=10, macs=5, macs_before=6, parameters=7, gate=Gate(passed=passed))
    return Run(id="r", model="m", version=1, state="done", artifacts=(artifact,), report={"float": {"parameters": 10}})


def _refusal(outcome: str = "refused", agreement: float = 1.0, answered: int = 2) -> RefusalFigures:
    probe = {"agreement": agreement, "sqnr_db": 40.0, "accuracy": 0.0}
    told = msgspec.to_builtins(_swap(at=1.0, total_s=1.0, outcome=outcome)) | {"probe": probe, "reason": "loses 95 %"}
    run = msgspec.structs.replace(_run(), version=3)
    return refusal_figures(run, [("d", msgspec.convert(told, TimedSwap))], [answered] * 5)


def _report(
    *,
    gate: bool = True,
    failed: int = 0,
    outcome: str = "committed",
    equal: bool = True,
    refused: RefusalFigures | None = None,
) -> Report:
    samples = [Sample(float(i), 1.0, error="no" if i < failed else "") for i in range(10)]
    return Report(
        lepta="0",
        host={},
        artifacts=artifact_figures(_run(gate)),
        swap=swap_figures(samples, [("d", _swap(at=5.0, total_s=1.0, outcome=outcome))], 1),
        refused=refused or _refusal(),
        job=_figures([0, 1, 2, 3], [True] * 4, [True, True, True, equal]),
        simulated=(),
    )


def test_a_run_that_keeps_every_promise_says_so() -> None:
    assert all(promise.kept for promise in promises(_report()))


@pytest.mark.parametrize(
    ("broken", "about"),
    [
        (_report(failed=1), "no request fails"),
        (_report(outcome="refused"), "swaps in"),
        (_report(equal=False), "a job is exact"),
        (_report(refused=_refusal(outcome="committed")), "wrong labels"),
        (_report(refused=_refusal(agreement=0.5)), "wrong labels"),
        (_report(refused=_refusal(answered=3)), "wrong labels"),
        (_report(gate=False), "gate"),
    ],
)
def test_each_broken_promise_is_named(broken: Report, about: str) -> None:
    [only] = [promise for promise in promises(broken) if not promise.kept]
    assert about in only.text


def test_a_refusal_tells_what_each_device_found_and_who_answers_afterwards() -> None:
    refused = _report().refused
    assert (refused.version, refused.answers) == (3, {"2": 5})
    assert refused.devices[0].reason == "loses 95 %"
    assert (refused.devices[0].agreement, refused.devices[0].accuracy) == (1.0, 0.0)


def test_the_json_has_what_others_read() -> None:
    told = msgspec.to_builtins(_report())
    assert {"profile", "parameters", "macs_before", "macs_after", "bytes", "accuracy_float", "accuracy_int8"} <= set(
        told["artifacts"][0]
    )
    assert {"requests", "failed", "p50_control_ms", "p99_control_ms", "p99_during_ms"} <= set(told["swap"])
    wanted = "rows shards moved duplicates lost exact makespan_s ideal_s bytes_moved".split()
    assert set(wanted) <= set(told["job"])
    assert told["artifacts"][0]["bytes_before"] == 40


def test_the_demo_wants_a_folder_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    assert root.run(["demo", "--data", str(tmp_path)]) == 1
    assert "is not empty" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "keep me"
