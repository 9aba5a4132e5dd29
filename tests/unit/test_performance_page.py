"""The page about performance shows what the committed figures say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.benchmarks import budget

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"


@pytest.mark.parametrize("name", ["stations", "hops", "servers", "promises", "trouble"])
def test_the_tables_are_those_of_the_committed_figures(name: str) -> None:
    figures = json.loads(budget.COMMITTED.read_text(encoding="utf-8"))
    assert budget.tables(figures)[name] in PAGE.read_text(encoding="utf-8")
