"""Models on demand, policies and stored answers, as a user of the command line has them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import numpy as np
import pytest

from agent.runtime import load
from tests.builders import RUNTIMES, classifier, random_inputs
from tests.system import cli
from tests.system.world import World
from tests.waiting import until


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("world")) as made:
        made.add_agent("pi-1")
        np.save(made.folder / "one.npy", random_inputs(load(classifier(), runtimes=RUNTIMES), 1)["x"])
        yield made


def lepta(world: World, *arguments: str) -> str:
    """What it printed; it succeeded."""
    done = cli.lepta(world.data, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def refused(world: World, *arguments: str) -> str:
    """Why it did not, in a line."""
    done: subprocess.CompletedProcess[str] = cli.lepta(world.data, *arguments)
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    return done.stderr


def ask(world: World, model: str) -> str:
    """The request's id."""
    told = lepta(world, "infer", model, str(world.folder / "one.npy"))
    return told.rsplit("request ", 1)[1].strip()


def row(table: str, name: str) -> str:
    """What stands beside `name`, spaces as one."""
    [line] = [line for line in table.splitlines() if line.strip().startswith(name)]
    return " ".join(line.split())


def test_a_question_brings_its_model_to_a_device_and_its_way_and_answer_can_be_read(world: World) -> None:
    world.push("wanted", classifier())
    request = ask(world, "wanted")
    traced = lepta(world, "trace", request)
    for step in ("user request", "optimized?", "distribute", "compute", "result?", "response", "store"):
        assert step in traced
    assert "rolled out by rollout-" in traced
    assert until(lambda: request in lepta(world, "answers", "ls", "--model", "wanted", "--last", "5min"))
    assert "pi-1" in row(lepta(world, "answers", "ls", "--device", "pi-1", "--state", "answered"), request)
    shown = lepta(world, "answers", "show", request)
    assert re.search(r"output scores: float32 \[1, 4\]: ", shown)
    assert "its inputs were not kept" in shown


def test_a_model_is_prepared_before_anybody_asks(world: World) -> None:
    world.push("early", classifier(2))
    assert "early answers" in lepta(world, "model", "prepare", "early")
    assert ask(world, "early")
    assert "early answers" in lepta(world, "model", "prepare", "early")


def test_what_cannot_be_prepared_says_why(world: World) -> None:
    assert "no model is called" in refused(world, "model", "prepare", "nobody")
    world.push("resting", classifier(3))
    lepta(world, "model", "policy", "resting", "--on-demand", "off")
    assert "on_demand" in refused(world, "model", "prepare", "resting")


def test_a_policy_is_shown_changed_bit_by_bit_and_forgotten(world: World) -> None:
    world.push("own", classifier(4))
    before = lepta(world, "model", "policy", "own")
    assert row(before, "keep") == "keep answers"
    lepta(world, "model", "policy", "own", "--keep", "all", "--days", "30")
    changed = lepta(world, "model", "policy", "own", "--mb", "64")
    told = [row(changed, name) for name in ("keep", "days", "megabytes")]
    assert told == ["keep all of this model", "days 30.0 of this model", "megabytes 64.0 of this model"]
    request = ask(world, "own")
    assert until(lambda: request in lepta(world, "answers", "ls", "--model", "own"))
    assert re.search(r"input +x: float32 \[1, 16\]: ", lepta(world, "answers", "show", request))
    assert lepta(world, "model", "policy", "own", "--reset") == before


def test_what_is_no_policy_or_answer_is_told_in_one_line(world: World) -> None:
    world.push("plain", classifier(5))
    assert "keep" in refused(world, "model", "policy", "plain", "--keep", "everything")
    assert "no model is called" in refused(world, "model", "policy", "nobody")
    assert "no length of time" in refused(world, "answers", "ls", "--last", "soon")
    assert "no answers are stored" in lepta(world, "answers", "ls", "--model", "plain")
    assert "request-none" in refused(world, "answers", "show", "request-none")


def test_pages_of_answers_follow_each_other(world: World) -> None:
    world.push("pages", classifier(6))
    asked = [ask(world, "pages") for _ in range(3)]
    assert until(lambda: all(each in lepta(world, "answers", "ls", "--model", "pages") for each in asked))
    first = lepta(world, "answers", "ls", "--model", "pages", "--limit", "2")
    following = first.rsplit("--after ", 1)[1].strip()
    second = lepta(world, "answers", "ls", "--model", "pages", "--limit", "2", "--after", following)
    assert [each in first for each in asked] == [False, True, True]
    assert [each in second for each in asked] == [True, False, False]
