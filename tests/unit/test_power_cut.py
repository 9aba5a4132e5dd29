"""What a power cut or a failing disk leaves of an update: an agent that serves, and gets to the new version by itself.

A seeded part; `python -m tests.powercuts` takes every operation.
"""

from __future__ import annotations

import errno
import random
from pathlib import Path

import pytest

from tests import powercuts
from tests.agent_here import quiet
from tests.disk_images import Medium, Operation
from tests.powercuts import Update, record, replay, stumble

SEED = 20


@pytest.fixture(scope="module")
def update(tmp_path_factory: pytest.TempPathFactory) -> Update:
    return record(tmp_path_factory.mktemp("update") / "agent")


def some(update: Update, count: int) -> list[int]:
    return sorted(random.Random(SEED).sample(range(len(update.operations)), count))


def test_a_power_cut_anywhere_in_an_update_leaves_an_agent_that_serves_and_ends_it(
    update: Update, tmp_path: Path
) -> None:
    tally = replay(update, tmp_path, some(update, 16), images=1, seed=SEED)
    assert tally.unusable == []
    assert (tally.write_prefixes, tally.images) == (16, 48)


def test_a_power_cut_anywhere_in_a_first_install_leaves_an_agent_that_ends_it(tmp_path: Path) -> None:
    update = record(tmp_path / "agent", first=True)
    assert replay(update, tmp_path, some(update, 8), images=1, seed=SEED).unusable == []


@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize("code", powercuts.ERRORS, ids=errno.errorcode.get)
def test_whatever_the_disk_refuses_the_old_version_serves_on_and_a_later_try_succeeds(
    update: Update, tmp_path: Path, code: int, times: int
) -> None:
    with quiet():
        assert stumble(update, tmp_path, some(update, 10), code, times).unusable == []


def test_without_flushing_a_cut_would_leave_agents_that_serve_nothing(update: Update, tmp_path: Path) -> None:
    """The replay finds what it looks for."""
    careless = [operation for operation in update.operations if operation.kind != "sync"]
    saved = next(n for n, operation in enumerate(careless) if operation.final == "state.json")
    tally = replay(Update(update.world, update.before, careless), tmp_path, [saved + 1], images=24, seed=SEED)
    assert any("does not start" in wrong for wrong in tally.unusable)


def test_a_cut_may_keep_or_lose_or_tear_what_was_not_flushed_and_nothing_else() -> None:
    medium = Medium({"a": b"old"})
    for operation in (
        Operation("write", "a.new", data=b"x" * 2048),
        Operation("sync", "a.new"),
        Operation("rename", "a.new", final="a"),
    ):
        medium.do(operation)
    assert (medium.flushed(), medium.lost()) == ({"a": b"x" * 2048}, {"a": b"old"})
    found = {frozenset(medium.torn(random.Random(seed)).items()) for seed in range(40)}
    whole = b"x" * 2048
    assert found == {
        frozenset({("a", b"old")}),
        frozenset({("a", whole)}),
        frozenset({("a", b"old"), ("a.new", whole)}),
    }
    medium.do(Operation("sync", "."))
    assert {frozenset(medium.torn(random.Random(seed)).items()) for seed in range(40)} == {frozenset({("a", whole)})}
