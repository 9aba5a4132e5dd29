"""Counts and times per version, in the shape that Triton's clients know."""

from __future__ import annotations

import msgspec

from agent.contract.oip_stats import Statistics


def answered(statistics: Statistics, version: int = 1, rows: int = 2) -> None:
    statistics.answered("m", version, rows=rows, at_ms=5, whole_ms=3.0, queue_ms=0.5, service_ms=1.0)


def test_an_answer_counts_its_rows_once_and_its_times() -> None:
    statistics = Statistics()
    answered(statistics)
    answered(statistics)
    [told] = msgspec.to_builtins(statistics.of("m", set()))
    assert (told["name"], told["version"], told["last_inference"]) == ("m", "1", 5)
    assert (told["inference_count"], told["execution_count"]) == (4, 2)
    times = told["inference_stats"]
    assert times["success"] == {"count": 2, "ns": 6_000_000}
    assert times["queue"] == {"count": 2, "ns": 1_000_000}
    assert times["compute_infer"] == {"count": 2, "ns": 2_000_000}
    assert set(times) == {"success", "fail", "queue", "cache_hit", "cache_miss"} | {
        f"compute_{part}" for part in ("input", "infer", "output")
    }
    [batch] = told["batch_stats"]
    assert (batch["batch_size"], batch["compute_infer"]["count"]) == (2, 2)


def test_a_failure_counts_for_the_version_that_had_it_or_was_asked_for_or_answered_last() -> None:
    statistics = Statistics()
    statistics.failed("m", 0, 0, 1.0)
    assert statistics.of("m", set()) == []
    answered(statistics, 1)
    answered(statistics, 2)
    for version, asked in ((0, 0), (0, 1), (0, 9), (1, 2), (3, 3)):
        statistics.failed("m", version, asked, 1.0)
    assert {s.version: s.inference_stats.fail.count for s in statistics.of("m", set())} == {"1": 2, "2": 2, "3": 1}


def test_a_version_that_nobody_asked_yet_has_zeros() -> None:
    [told] = Statistics().of("m", {7})
    assert (told.version, told.inference_count, told.inference_stats.success.count) == ("7", 0, 0)


def test_what_is_remembered_is_bounded() -> None:
    statistics = Statistics()
    for rows in range(1, 1000):
        answered(statistics, rows=rows)
    [told] = statistics.of("m", set())
    assert len(told.batch_stats) == 64
    assert told.execution_count == 999
    for number in range(10_010):
        statistics.answered(f"m{number}", 1, rows=1, at_ms=1, whole_ms=1.0, queue_ms=0.0, service_ms=1.0)
    assert len(statistics.models()) == 10_000
    assert "m" not in statistics.models()
