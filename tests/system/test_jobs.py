"""Jobs on a real controller: inputs of several kinds, reducers, and results, by REST and on the command line."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from agent.runtime import load, predict
from controller.client.rest import ApiError
from controller.commands import root
from controller.reducers.classes import sharpened
from controller.simulate import SimulatedFleet, Simulation
from tests import builders, histories
from tests.system.test_fleet import until, wait_for_job
from tests.system.world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two real agents that serve `toy`."""
    with World(tmp_path_factory.mktemp("jobs")) as world:
        for name in ("one", "two"):
            world.add_agent(name)
        world.roll_out("toy", world.bring("toy", builders.classifier()))
        yield world


def rows(count: int) -> np.ndarray:
    return np.random.default_rng(5).normal(0, 1, (count, 16)).astype(np.float32)


def as_csv(path: Path, x: np.ndarray, labels: np.ndarray) -> Path:
    header = ",".join([*(f"x_{n}" for n in range(16)), "label", "id"])
    lines = [
        ",".join([*map(repr, map(float, row)), str(y), f"row-{n}"])
        for n, (row, y) in enumerate(zip(x, labels, strict=True))
    ]
    path.write_text("\n".join([header, *lines]))
    return path


def job_input(world: World, folder: Path) -> str:
    return world.client.put_file(folder / "x.npy").digest


def truth(x: np.ndarray) -> np.ndarray:
    [scores] = predict(load(builders.classifier(), runtimes=builders.RUNTIMES), {"x": x}).values()
    return scores


def test_a_csv_becomes_a_parquet_file_with_calibrated_rows(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    x = rows(600)
    scores = truth(x)
    # The model is surer than it should be: labels come from its scores as a third of what they are.
    chances = sharpened(scores, 3.0).cumsum(axis=1)
    labels = (chances < np.random.default_rng(6).random((600, 1))).sum(axis=1)
    out = tmp_path / "out.parquet"
    monkeypatch.setenv("LEPTA_DATA", str(world.data))
    arguments = ["job", "run", "toy", "--input", str(as_csv(tmp_path / "rows.csv", x, labels)), "--output", str(out)]
    settings = ["--set", "refine=temperature", "--set", "held_out=0.5", "--set", "top_k=2", "--shard-rows", "50"]
    assert root.run([*arguments, "--reduce", "score", *settings, "--wait"]) == 0
    said = capsys.readouterr().out
    for word in ("ece_before", "ece_after", "temperature", "device seconds", "accuracy"):
        assert word in said
    table = parquet.read_table(out)
    assert table["id"].to_pylist() == [f"row-{n}" for n in range(600)]
    assert np.array_equal(np.array(table["output:scores"].to_pylist(), np.float32), scores)
    assert set(table["device"].to_pylist()) <= {"one", "two"}
    job = world.client.jobs()[0]
    assert job.metrics is not None
    assert job.metrics["accuracy"] == pytest.approx((scores.argmax(axis=1) == labels).mean())
    assert job.metrics["ece_after"] < job.metrics["ece_before"]
    assert [job.state for job in world.client.job_events(job.id)] == ["done"]
    assert job.device_s > 0
    assert sum(share.rows for share in job.devices.values()) == 600


def test_a_result_is_downloaded_in_parts(world: World, tmp_path: Path) -> None:
    job = wait_for_job(world, world.client.start_job("toy", world.put_array(rows(50), tmp_path / "x.npy")).id)
    assert job.state == "done"
    path = f"/api/v1/jobs/{job.id}/result"
    whole = world.http.get(path)
    assert whole.headers["content-disposition"].endswith('.npz"')
    part = world.http.get(path, headers={"Range": "bytes=10-99", "If-Range": whole.headers["etag"]})
    assert part.status_code == 206
    assert part.content == whole.content[10:100]


def test_what_does_not_fit_is_refused_before_anything_is_sent(world: World, tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("a,b\n1,2\n")
    good = world.put_array(rows(5), tmp_path / "x.npy")
    for digest, options, complaint in (
        (world.client.put_file(bad).digest, {}, "needs the columns x_0 to x_15"),
        (good, {"reduce": "nonsense"}, "there are score, stats, topk, vote"),
        (good, {"settings": {"refine": "temperature"}}, "fitted to labels"),
        (good, {"reduce": "stats", "format": "parquet"}, "gives no rows"),
    ):
        before = len(world.client.jobs())
        with pytest.raises(ApiError, match=complaint) as refused:
            world.client.start_job("toy", digest, **options)
        assert refused.value.who == "user"
        assert len(world.client.jobs()) == before
    with pytest.raises(ApiError, match="wants 3 devices for each row, and 2 serve"):
        world.client.start_job("toy", good, reduce="vote")


def test_a_vote_finds_the_device_that_computes_wrongly(tmp_path: Path) -> None:
    def simulate(number: int) -> Simulation:
        return Simulation(row_ms=0.1, wrong_every=7 if number == 2 else 0)

    with World(tmp_path / "world") as world:
        token = world.client.claim(uses=4).token
        agents = SimulatedFleet(world.client.place.url, token, tmp_path / "simulated", 4, simulate)
        thread = threading.Thread(target=agents.run, daemon=True)
        thread.start()
        try:
            until(lambda: sum(d.online for d in world.client.devices()) == 4, "four devices")
            world.roll_out("toy", world.bring("toy", builders.classifier()))
            x = rows(700)
            job = world.client.start_job("toy", world.put_array(x, tmp_path / "x.npy"), shard_rows=70, reduce="vote")
            ended = wait_for_job(world, job.id)
            world.client.job_result(job.id, tmp_path / "vote.npz")
            cheap = world.client.start_job("toy", job_input(world, tmp_path), shard_rows=35, canaries=35)
            cheap = wait_for_job(world, cheap.id)
            world.client.job_result(cheap.id, tmp_path / "score.npz")
        finally:
            agents.stop()
            thread.join(30)
    assert (ended.state, ended.lost, ended.shards) == ("done", 0, 30)
    assert ended.metrics is not None
    disagreement = {name: value for name, value in ended.metrics.items() if name.startswith("disagreement:")}
    assert disagreement["disagreement:sim-002"] == pytest.approx(1 / 7)
    assert sum(disagreement.values()) == disagreement["disagreement:sim-002"]
    with np.load(tmp_path / "vote.npz") as table:
        sums = np.frombuffer(x.tobytes(), np.uint8).reshape(700, -1).sum(axis=1)
        assert np.array_equal(table["label"], sums % 4)
        assert set(table["votes"].tolist()) == {3}
    assert (cheap.state, cheap.lost) == ("done", 0)
    assert cheap.metrics is not None
    assert len(cheap.metrics) == 2 + len(cheap.devices)
    assert [n for n, v in cheap.metrics.items() if n.startswith("canary") and v] == ["canary_disagreement:sim-002"]
    with np.load(tmp_path / "score.npz") as table:
        right = table["devices"][table["device"]] != "sim-002"
        assert np.array_equal(table["label"][right], (sums % 4)[right])


def test_a_second_job_over_the_same_input_moves_none_of_it(world: World, tmp_path: Path) -> None:
    x = rows(16_000)
    digest = world.put_array(x, tmp_path / "x.npy")
    first, second = (wait_for_job(world, world.client.start_job("toy", digest, shard_rows=4000).id) for _ in range(2))
    outputs = truth(x).size  # As the model stores them: a byte each.
    assert first.bytes_moved + first.bytes_packed >= x.nbytes + outputs
    assert first.bytes_cached == 0
    assert second.bytes_moved == outputs
    assert second.bytes_cached >= x.nbytes


def test_a_job_over_csv_goes_on_after_a_kill_of_the_controller_with_all_that_was_counted(tmp_path: Path) -> None:
    content = builders.slow()
    model = load(content, runtimes=builders.RUNTIMES)
    [(name, x)] = builders.random_inputs(model, 80).items()
    with World(tmp_path) as world:
        world.add_agent("one")
        world.roll_out("slow", world.bring("slow", content))
        packed = tmp_path / "x.npz"
        np.savez_compressed(packed, x=x)
        job = world.client.start_job("slow", world.client.put_file(packed).digest, shard_rows=4)
        until(lambda: world.client.job(job.id).accepted >= 6, "some shards")
        os.kill(world.controller.process.pid, signal.SIGKILL)
        world.controller.process.wait()
        world.restart_controller()
        ended = wait_for_job(world, job.id)
        world.client.job_result(job.id, tmp_path / "result.npz")
        until(lambda: not list((world.data / "jobs" / "inputs").iterdir()), "what was laid out is gone")
        assert not list((world.data / "jobs").glob("job-*"))
    assert (ended.state, ended.lost) == ("done", 0)
    assert sum(share.rows for share in ended.devices.values()) == 80
    [want] = predict(model, {name: x}).values()
    with np.load(tmp_path / "result.npz") as table:
        assert np.array_equal(table["output:scores"], want)


def test_a_paused_job_hands_out_nothing_until_it_is_resumed_and_a_higher_priority_goes_first(tmp_path: Path) -> None:
    content = builders.slow()
    model = load(content, runtimes=builders.RUNTIMES)
    [x] = builders.random_inputs(model, 60).values()
    with World(tmp_path) as world:
        world.add_agent("one")
        world.roll_out("slow", world.bring("slow", content))
        digest = world.put_array(x, tmp_path / "x.npy")
        first = world.client.start_job("slow", digest, shard_rows=2)
        until(lambda: world.client.job(first.id).accepted >= 2, "some shards")
        assert world.client.pause_job(first.id).state == "paused"
        urgent = world.client.start_job("slow", digest, shard_rows=2, priority=5)
        assert wait_for_job(world, urgent.id).state == "done"
        paused = world.client.job(first.id)
        assert paused.state == "paused"
        assert paused.accepted < paused.shards
        os.kill(world.controller.process.pid, signal.SIGKILL)
        world.controller.process.wait()
        world.restart_controller()
        until(lambda: world.client.job(first.id).state == "paused", "it is still paused")
        world.client.resume_job(first.id)
        ended = wait_for_job(world, first.id)
    assert (ended.state, ended.lost, ended.accepted) == ("done", 0, ended.shards)


def test_a_poison_shard_is_quarantined_after_it_failed_on_two_devices_and_the_job_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = tmp_path / "history.jsonl"
    monkeypatch.setenv("LEPTA_RECORD", str(history))
    x = rows(200)
    x[77] = 1234.5
    poison = x[77].tobytes()
    with World(tmp_path / "world") as world:
        token = world.client.claim(uses=3).token
        place = (world.client.place.url, token, tmp_path / "simulated")
        agents = SimulatedFleet(*place, 3, lambda _: Simulation(row_ms=0.1, poison=poison))
        thread = threading.Thread(target=agents.run, daemon=True)
        thread.start()
        try:
            until(lambda: sum(d.online for d in world.client.devices()) == 3, "three devices")
            world.roll_out("toy", world.bring("toy", builders.classifier()))
            job = world.client.start_job("toy", world.put_array(x, tmp_path / "x.npy"), shard_rows=10)
            ended = wait_for_job(world, job.id)
            world.client.job_result(job.id, tmp_path / "result.npz")
        finally:
            agents.stop()
            thread.join(30)
    assert (ended.state, ended.lost, ended.quarantined, ended.accepted) == ("done", 0, 1, 19)
    assert ended.error == "10 rows are quarantined: these rows are poison"
    lines = list(map(json.loads, history.read_text().splitlines()))
    assert histories.check(lines)[job.id].violations == []
    tried = [line["device"] for line in lines if line["event"] == "lease" and line["shard"] == 7]
    assert len(tried) == len(set(tried)) == 2
    with np.load(tmp_path / "result.npz") as table:
        assert np.array_equal(np.flatnonzero(table["device"] < 0), np.arange(70, 80))
