"""The checker of histories finds what must not be, and simulated lives of jobs hold nothing of it."""

from __future__ import annotations

from typing import Any

import pytest

from tests import histories
from tests.job_scenes import draw
from tests.jobs_simulated import Life, many

BEGUN = {"event": "job", "job": "j", "shards": 2}


def lease(shard: int, attempt: int = 1, device: str = "a") -> dict[str, Any]:
    return {"event": "lease", "job": "j", "shard": shard, "attempt": attempt, "device": device, "speculative": False}


def accept(shard: int, attempt: int = 1, device: str = "a") -> dict[str, Any]:
    return {"event": "accept", "job": "j", "shard": shard, "attempt": attempt, "device": device}


def restore(*accepted: int) -> dict[str, Any]:
    return {"event": "restore", "job": "j", "accepted": list(accepted), "quarantined": []}


def end(accepted: int, state: str = "done") -> dict[str, Any]:
    return {"event": "job-end", "job": "j", "state": state, "accepted": accepted}


QUARANTINE = {"event": "quarantine", "job": "j", "shard": 1}
GOOD = [
    [BEGUN, lease(0), lease(1), accept(0), accept(1), end(2)],
    [BEGUN, lease(0), lease(1), accept(0), restore(0), lease(1, 2, "b"), accept(1, 2, "b"), end(2)],
    [BEGUN, lease(0), lease(1), accept(0), restore(0, 1), end(2)],
    [BEGUN, lease(0), lease(1), accept(0), QUARANTINE, end(1)],
    [BEGUN, lease(0), end(0, "cancelled")],
]
BAD = [
    ("accepted twice", [BEGUN, lease(0), accept(0), lease(1), accept(0)]),
    ("neither counted nor quarantined", [BEGUN, lease(0), accept(0), end(1)]),
    ("had the lease", [BEGUN, lease(0), accept(0, 1, "b")]),
    ("had the lease", [BEGUN, lease(0), accept(0, 2)]),
    ("although it was accepted", [BEGUN, lease(0), accept(0), lease(0, 2)]),
    ("nothing fences", [BEGUN, lease(0, 2), restore(), lease(0, 2, "b")]),
    ("forgot the shards", [BEGUN, lease(0), accept(0), restore()]),
    ("which nobody had", [BEGUN, lease(0), restore(1)]),
    ("counts a shard twice", [BEGUN, lease(0), restore(0, 0)]),
    ("forgot the quarantine", [BEGUN, lease(1), QUARANTINE, restore()]),
    ("was quarantined, and accepted", [BEGUN, lease(1), QUARANTINE, accept(1)]),
    ("was accepted, and quarantined", [BEGUN, lease(1), accept(1), QUARANTINE]),
    ("in a job that is paused", [BEGUN, {"event": "paused", "job": "j"}, lease(0)]),
    ("in a job that is cancelled", [BEGUN, end(0, "cancelled"), lease(0)]),
    ("ended twice", [BEGUN, end(0, "cancelled"), end(0, "cancelled")]),
    ("it says 2", [BEGUN, lease(0), accept(0), end(2, "cancelled")]),
]


@pytest.mark.parametrize("lines", GOOD)
def test_what_may_be_is_no_violation(lines: list[dict[str, Any]]) -> None:
    assert histories.check(lines)["j"].violations == []


@pytest.mark.parametrize(("complaint", "lines"), BAD)
def test_what_must_not_be_is_found(complaint: str, lines: list[dict[str, Any]]) -> None:
    [violation, *_] = histories.check(lines)["j"].violations
    assert complaint in violation


def test_whatever_breaks_every_shard_counts_once_and_the_result_is_that_of_an_undisturbed_run() -> None:
    tally = many(300)
    assert tally.wrong == []
    assert (tally.lost, tally.double) == (0, 0)
    assert min(tally.restarts, tally.speculative, tally.refused) > 50


def test_the_same_seed_gives_the_same_life() -> None:
    assert Life(draw(7)).run() == Life(draw(7)).run()
