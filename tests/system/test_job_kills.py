"""Jobs while real agents, brokers and controllers are killed; `python -m tests.jobkills` does it hundreds of times."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import jobkills

pytestmark = pytest.mark.slow


def test_results_are_those_of_an_undisturbed_run_whatever_is_killed(tmp_path: Path) -> None:
    tally = jobkills.everything(tmp_path, kills=5, seed=4)
    assert tally.violations == []
    assert (tally.lost, tally.double, tally.different) == (0, 0, 0)
    assert tally.real_kills == 5
    assert len(tally.kills) >= 4
