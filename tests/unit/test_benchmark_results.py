"""Benchmarks say what they promise and fail when a promise is broken."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.benchmarks import BENCHMARKS, results
from tests.benchmarks.results import Figure, at_most

HELD = at_most("a_ms", 3.0, 5.0, "ms", "idle")
MISSED = at_most("b_mb", 80.0, 75.0, "MB")
FIRM = Figure("failed", 1, "", "0", False, always=True)
PLAIN = Figure("c_s", 1.5, "s")


def test_a_full_run_breaks_on_every_missed_promise_and_a_quick_one_on_the_firm_ones() -> None:
    figures = [HELD, MISSED, FIRM, PLAIN]
    assert results.broken(figures, quick=False) == [MISSED, FIRM]
    assert results.broken(figures, quick=True) == [FIRM]


def test_the_json_is_one_flat_object_of_numbers() -> None:
    assert results.flat([HELD, PLAIN]) == {"a_ms": 3.0, "c_s": 1.5}


def test_the_table_shows_value_promise_verdict_and_note() -> None:
    lines = results.table([HELD, MISSED, PLAIN]).splitlines()
    assert lines[1].split() == ["a_ms", "3", "ms", "<=", "5", "holds", "idle"]
    assert "BROKEN" in lines[2]
    assert lines[3].split() == ["c_s", "1.5", "s"]


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["--help"]])
def test_the_command_lists_benchmarks_and_names_them_when_asked_for_an_unknown_one(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "tests.benchmarks", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == (2 if arguments == ["nonsense"] else 0)
    shown = ended.stdout + ended.stderr
    assert "--quick" in shown if arguments == ["--help"] else all(name in shown for name in BENCHMARKS)


def test_the_listing_process_imports_nothing_heavy() -> None:
    code = "import sys, tests.benchmarks.__main__; print({'numpy', 'ai_edge_litert', 'controller'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "set()"
