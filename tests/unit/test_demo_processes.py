"""The demo's children: bare runs that answer like the fleet's runtime, kills that leave nobody, ends that are told."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from agent.runtime import load, predict
from controller.client.locate import locate
from controller.client.rest import Client
from controller.demo.processes import Bare, Child, family, rate_of, stop_all, wait_until
from controller.demo.stream import Stream, StreamSettings
from controller.errors import Internal
from tests.builders import RUNTIMES, classifier, random_inputs
from tests.rest_double import RestDouble, served


@pytest.fixture
def told(tmp_path: Path) -> dict[str, Any]:
    content = classifier()
    model = load(content, runtimes=RUNTIMES)
    (tmp_path / "model.tflite").write_bytes(content)
    arrays: dict[str, Any] = {**random_inputs(model, 40), "labels": np.zeros(40, np.int64)}
    np.savez(tmp_path / "batch.npz", **arrays)
    files = {"model": str(tmp_path / "model.tflite"), "input": str(tmp_path / "batch.npz")}
    return {**files, "runtimes": list(RUNTIMES), "threads": 1}


@pytest.fixture
def bare(told: dict[str, Any], tmp_path: Path) -> Iterator[Bare]:
    with Bare(told, tmp_path / "bare.log") as process:
        yield process


def test_a_bare_run_answers_as_the_shipped_runtime_does(bare: Bare, told: dict[str, Any], tmp_path: Path) -> None:
    assert bare.ask({"do": "score", "output": str(tmp_path / "out.npz")})["rows"] == 40
    model = load(classifier(), runtimes=RUNTIMES)
    expected = predict(model, random_inputs(model, 40))
    with np.load(tmp_path / "out.npz") as found:
        assert all(np.array_equal(found[name], array) for name, array in expected.items())


def test_the_speed_of_bare_processes_is_measured_for_as_long_as_asked(bare: Bare) -> None:
    rate = rate_of([bare], 0.1)
    assert 0.1 <= rate.seconds < 1
    assert rate.rows > 0


def test_a_bare_process_that_dies_is_an_error_with_its_last_words(told: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(Internal, match=r"ended with status(?s:.*)/nowhere"):
        Bare({**told, "model": "/nowhere"}, tmp_path / "bare.log")


def _family(tmp_path: Path) -> Child:
    """A program with a child of its own."""
    return Child("parent", "tests.unit.test_demo_processes", [], tmp_path / "log")


def main() -> int:
    """What `_family` runs: a process that starts another one and sleeps; with an argument it only sleeps."""
    if not sys.argv[1:]:
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    time.sleep(60)
    return 0


def test_a_kill_ends_the_whole_tree(tmp_path: Path) -> None:
    parent = _family(tmp_path)
    wait_until(lambda: len(family(parent.pid)) == 2, "the grandchild", [parent], 30)
    tree = family(parent.pid)
    parent.kill()
    assert not parent.alive
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in tree)


def test_stopping_leaves_nobody_though_the_parent_forgets_its_child(tmp_path: Path) -> None:
    parent = _family(tmp_path)
    wait_until(lambda: len(family(parent.pid)) == 2, "the grandchild", [parent], 30)
    tree = family(parent.pid)
    stop_all([parent])
    _gone, left = psutil.wait_procs(tree, timeout=5)
    assert [p for p in left if p.status() != psutil.STATUS_ZOMBIE] == []


def test_a_program_that_ends_early_is_told_with_its_last_words(tmp_path: Path) -> None:
    child = Child("lepta up", "controller.cli", ["up", "--port", "70000"], tmp_path / "log")
    with pytest.raises(Internal, match=r"lepta up ended with status 2:(?s:.*)--port"):
        wait_until(lambda: False, "its start", [child], 30)


def test_what_takes_too_long_is_given_up(tmp_path: Path) -> None:
    parent = _family(tmp_path)
    with pytest.raises(Internal, match="the end took longer"):
        wait_until(lambda: False, "the end", [parent], 0.2)
    parent.kill()


def test_a_stream_keeps_its_pace_and_names_who_answered(tmp_path: Path) -> None:
    double = RestDouble()
    settings = StreamSettings(per_s=50, connections=2)
    rows = {"image": np.zeros((3, 8, 8, 1), np.float32)}
    with (
        served(double, tmp_path) as environment,
        Client(locate(environment)) as client,
        Stream(client, "digits", rows, settings) as stream,
    ):
        time.sleep(1.0)
    assert 30 <= len(stream.samples) <= 55
    assert {(s.version, s.device, s.error) for s in stream.samples} == {(1, "pi-1", "")}


def test_a_stream_counts_what_fails_and_goes_on(tmp_path: Path) -> None:
    double = RestDouble()
    with served(double, tmp_path) as environment, Client(locate(environment)) as client:
        rows = {"image": np.zeros((1, 8, 8, 1), np.float32)}
        with Stream(client, "no/such/route", rows, StreamSettings(per_s=50, connections=1)) as stream:
            time.sleep(0.5)
    assert len(stream.samples) > 10
    assert all("status 404" in sample.error for sample in stream.samples)
