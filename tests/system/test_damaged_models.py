"""Damaged model files go through real workers: each costs its worker at most, and never what starts the workers."""

from __future__ import annotations

from pathlib import Path

from tests.damaged_models import damaged, survive


def test_no_damaged_file_ends_more_than_its_worker(tmp_path: Path) -> None:
    """A small part; `python -m tests.damaged_models` takes all."""
    outcome = survive(tmp_path, 40, seed=7)
    assert (outcome.damaged_models, outcome.agent_deaths) == (40, 0)
    assert sum(outcome.endings.values()) == 40
    assert outcome.endings["refused"] > 10


def test_the_same_seed_damages_alike_and_every_file_is_another() -> None:
    first, again = (list(damaged(60, seed=3)) for _ in range(2))
    assert first == again
    assert all(sound != broken for sound, broken in first)
    assert len({broken for _, broken in first}) == 60
