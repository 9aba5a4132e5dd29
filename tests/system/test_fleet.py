"""A real controller with its broker, real and simulated agents, and what is promised when something breaks."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
import psutil
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from agent.contract import topics
from agent.contract.signing import PrivateKey
from agent.runtime import load, predict
from controller import replies
from controller.client.rest import ApiError
from controller.simulate import SimulatedFleet, Simulation
from tests import builders, histories
from tests.joining import application
from tests.system.world import World

PATIENCE_S = 30.0


def until(condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.05)


def rows(count: int) -> np.ndarray:
    return builders.random_inputs(load(builders.classifier(), runtimes=builders.RUNTIMES), count)["x"]


def expected(content: bytes, x: np.ndarray) -> np.ndarray:
    """What a single process answers."""
    [scores] = predict(load(content, runtimes=builders.RUNTIMES), {"x": x}).values()
    return scores


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as fleet:
        yield fleet


@pytest.fixture
def simulated(fleet: World, tmp_path: Path) -> Iterator[Callable[..., SimulatedFleet]]:
    """Starts simulated agents in a thread of this process."""
    running: list[tuple[SimulatedFleet, threading.Thread]] = []

    def start(count: int, simulate: Callable[[int], Simulation] = lambda _: Simulation()) -> SimulatedFleet:
        token = fleet.client.claim(uses=count).token
        agents = SimulatedFleet(fleet.client.place.url, token, tmp_path / "simulated", count, simulate)
        thread = threading.Thread(target=agents.run, daemon=True)
        thread.start()
        running.append((agents, thread))
        until(lambda: sum(d.online for d in fleet.client.devices()) >= count, f"{count} simulated agents online")
        return agents

    yield start
    for agents, thread in running:
        agents.stop()
        thread.join(PATIENCE_S)


def wait_for_job(fleet: World, job: str) -> replies.Job:
    until(lambda: fleet.client.job(job).state not in ("queued", "running"), "the end of the job")
    return fleet.client.job(job)


def result_of(fleet: World, job: str, folder: Path) -> dict[str, np.ndarray]:
    path = folder / "result.npz"
    fleet.client.job_result(job, path)
    with np.load(io.BytesIO(path.read_bytes())) as table:
        return {name: table[name] for name in table.files}


def test_fifty_simulated_agents_in_one_process_serve_and_compute_exactly(
    fleet: World, simulated: Callable[..., SimulatedFleet], tmp_path: Path
) -> None:
    simulated(50)
    rollout = fleet.roll_out("toy", fleet.bring("toy", builders.classifier()))
    assert [d.state for d in rollout.devices] == ["serving"] * 50
    x = (np.arange(3000 * 16) % 251).astype(np.float32).reshape(3000, 16)
    job = fleet.client.start_job("toy", fleet.put_array(x, tmp_path / "x.npy"))
    ended = wait_for_job(fleet, job.id)
    assert (ended.state, ended.rows, ended.lost) == ("done", 3000, 0)
    assert ended.runtime == "simulated"
    assert len(ended.devices) == 50
    sums = np.frombuffer(x.tobytes(), np.uint8).reshape(3000, -1).sum(axis=1)
    assert np.array_equal(result_of(fleet, job.id, tmp_path)["label"], sums % 4)


def test_a_job_is_exact_although_an_agent_is_killed(fleet: World, tmp_path: Path) -> None:
    content = builders.slow()
    for name in ("one", "two"):
        fleet.add_agent(name)
    fleet.roll_out("slow", fleet.bring("slow", content))
    model = load(content, runtimes=builders.RUNTIMES)
    [(name, x)] = builders.random_inputs(model, 150).items()
    job = fleet.client.start_job("slow", fleet.put_array(x, tmp_path / "x.npy"), shard_rows=5)
    until(lambda: fleet.client.job(job.id).accepted >= 4, "some shards")
    for pid in fleet.agents["two"].pids:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not fleet.client.device("two").online, "the loss is noticed", patience_s=5.0)
    ended = wait_for_job(fleet, job.id)
    assert (ended.state, ended.lost, ended.accepted) == ("done", 0, ended.shards)
    table = result_of(fleet, job.id, tmp_path)
    [want] = predict(model, {name: x}).values()
    [got] = [array for key, array in table.items() if key.startswith("output:")]
    assert np.array_equal(got, want)


def test_a_full_disk_costs_one_clear_error_and_the_fleet_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEPTA_FAULTS", "store.before_commit=ENOSPC@12")
    with World(tmp_path) as fleet:
        monkeypatch.delenv("LEPTA_FAULTS")
        answers = []

        def ask(path: str, body: dict[str, Any]) -> dict[str, Any]:
            """Once more after an error, as an agent does whose answer was lost."""
            for _ in range(2):
                answers.append(fleet.http.post(path, json=body))
                if answers[-1].status_code == 201:
                    break
            told: dict[str, Any] = answers[-1].json()
            return told

        for _ in range(20):
            ask("/api/v1/enroll", application(ask("/api/v1/claims", {})["token"], PrivateKey.generate()))
        refused = [answer.json() for answer in answers if answer.status_code != 201]
        assert [answer["who"] for answer in refused] == ["us"]
        assert "no space left" in refused[0]["error"]
        assert len(fleet.client.devices()) == 20
        fleet.add_agent("one")
        fleet.roll_out("toy", fleet.bring("toy", builders.classifier()))
        assert fleet.client.infer("toy", {"x": rows(1)}).device == "one"


def test_a_killed_controller_goes_on_with_its_job_and_counts_no_shard_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = tmp_path / "history.jsonl"
    monkeypatch.setenv("LEPTA_RECORD", str(history))
    content = builders.slow()
    with World(tmp_path) as fleet:
        fleet.add_agent("one")
        fleet.roll_out("slow", fleet.bring("slow", content))
        model = load(content, runtimes=builders.RUNTIMES)
        [(name, x)] = builders.random_inputs(model, 120).items()
        job = fleet.client.start_job("slow", fleet.put_array(x, tmp_path / "x.npy"), shard_rows=5)
        until(lambda: fleet.client.job(job.id).accepted >= 4, "some shards")
        os.kill(fleet.controller.process.pid, signal.SIGKILL)
        fleet.controller.process.wait()
        fleet.restart_controller()
        ended = wait_for_job(fleet, job.id)
        assert (ended.state, ended.lost) == ("done", 0)
        table = result_of(fleet, job.id, tmp_path)
    [want] = predict(model, {name: x}).values()
    [got] = [array for key, array in table.items() if key.startswith("output:")]
    assert np.array_equal(got, want)
    checked = histories.check(map(json.loads, history.read_text().splitlines()))[job.id]
    assert checked.violations == []
    assert (checked.restarts, checked.double, checked.lost) == (1, 0, 0)


def test_agents_serve_on_through_a_killed_broker(fleet: World) -> None:
    content = builders.classifier()
    fleet.add_agent("one")
    fleet.roll_out("toy", fleet.bring("toy", content))
    x = rows(3)
    broker = next(p for p in psutil.Process(fleet.controller.process.pid).children() if _is_broker(p))
    broker.kill()

    def answers() -> bool:
        try:
            return np.allclose(next(iter(fleet.client.infer("toy", {"x": x}).outputs.values())), expected(content, x))
        except ApiError as error:
            if error.status in (502, 503, 504):
                return False
            raise

    until(answers, "answers after the broker came back")


def _is_broker(process: psutil.Process) -> bool:
    return any("embedded" in part for part in process.cmdline())


def test_a_badly_trained_version_is_refused_by_the_device_and_the_old_one_serves_on(fleet: World) -> None:
    good = builders.classifier()
    fleet.add_agent("one")
    fleet.roll_out("toy", fleet.bring("toy", good))
    wrong = fleet.bring("toy", builders.classifier(wrong=True), judged_by=good)
    rollout = fleet.client.start_rollout(fleet.client.release("toy", wrong).id)
    until(lambda: fleet.client.rollout(rollout.id).state != "running", "the end of the rollout")
    ended = fleet.client.rollout(rollout.id)
    assert ended.state == "failed"
    assert ended.devices[0].state == "refused"
    assert "accuracy" in ended.devices[0].reason
    answer = fleet.client.infer("toy", {"x": rows(1)})
    assert answer.version == 1
    swap = fleet.client.device("one").swaps[0]
    assert (swap.outcome, swap.to_version) == ("refused", wrong)


def test_a_changed_byte_in_the_catalog_is_refused_and_the_old_model_serves_on(fleet: World) -> None:
    fleet.add_agent("one")
    fleet.roll_out("toy", fleet.bring("toy", builders.classifier()))
    second = builders.classifier(2)
    version = fleet.bring("toy", second)
    digest = builders.file_ref(second).digest
    stored = fleet.data / "files" / digest[:2] / digest
    stored.write_bytes(builders.changed_byte(second))
    rollout = fleet.client.start_rollout(fleet.client.release("toy", version).id)
    until(lambda: bool(fleet.client.device("one").swaps[0].to_version == version), "a swap record")
    swap = fleet.client.device("one").swaps[0]
    assert swap.outcome in ("refused", "failed")
    assert fleet.client.infer("toy", {"x": rows(1)}).version == 1
    until(lambda: fleet.client.rollout(rollout.id).state == "failed", "the rollout's end")


def test_a_user_gets_his_answer_over_mqtt_under_his_own_name(fleet: World) -> None:
    content = builders.classifier()
    fleet.add_agent("one")
    fleet.roll_out("toy", fleet.bring("toy", content))
    x = rows(1)
    access = fleet.client.broker()
    answers: list[dict[str, Any]] = []
    subscribed = threading.Event()
    user = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    user.username_pw_set(access.username, access.password)
    user.on_message = lambda _c, _u, message: answers.append(json.loads(message.payload))
    user.on_subscribe = lambda *_: subscribed.set()
    user.connect(access.host, access.port)
    user.loop_start()
    try:
        user.subscribe(topics.client_answer("me"))
        assert subscribed.wait(5)
        tensor = {"name": "x", "shape": [1, 16], "datatype": "FP32", "data": x.ravel().tolist()}
        good = {"client": "me", "id": "42", "inputs": [tensor]}
        bad = {"client": "me", "id": "43", "inputs": [{**tensor, "shape": [1, 3]}]}
        for request in (good, bad, {"client": "not a name!", "inputs": [tensor]}, "garbage"):
            user.publish(topics.model_infer("toy"), json.dumps(request), qos=1)
        until(lambda: len(answers) == 2, "two answers")
    finally:
        user.disconnect()
        user.loop_stop()
    by_id = {answer["id"]: answer for answer in answers}
    [output] = by_id["42"]["outputs"]
    assert np.allclose(np.reshape(output["data"], output["shape"]), expected(content, x))
    assert "shape" in str(by_id["43"]["error"]) or "fill" in str(by_id["43"]["error"])


def test_garbage_on_every_topic_kills_nobody(fleet: World) -> None:
    content = builders.classifier()
    fleet.add_agent("one")
    fleet.roll_out("toy", fleet.bring("toy", content))
    access = fleet.client.broker()
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.username_pw_set(access.username, access.password)
    client.connect(access.host, access.port)
    client.loop_start()
    names = [topics.agent("one", kind) for kind in (*topics.AGENT_UP, *topics.AGENT_DOWN)]
    names += [topics.agent("stranger", kind) for kind in topics.AGENT_UP]
    names += [topics.model_infer("toy"), topics.client_answer("me"), topics.CONTROLLER_STATUS]
    names += [topics.blob("a" * 64, 0), topics.predictions("toy", "one"), f"{topics.ROOT}/nonsense/x"]
    payloads = [b"", b"\x00\xff" * 50, b"{}", b"[" * 5000, b'{"v": 99}', b"\x81\xa1v\x01", b"null", b'"' * 7]
    try:
        for name in names:
            for payload in payloads:
                client.publish(name, payload, qos=1).wait_for_publish(5)
    finally:
        client.disconnect()
        client.loop_stop()
    x = rows(2)
    until(lambda: fleet.client.device("one").online, "the agent is still here")
    answer = fleet.client.infer("toy", {"x": x})
    assert np.allclose(next(iter(answer.outputs.values())), expected(content, x))
    assert fleet.controller.process.poll() is None


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("GET", "/api/v1/models/none", None, 404, "no model is called"),
        ("GET", "/api/v1/devices/none", None, 404, "no device"),
        ("GET", "/api/v1/runs/none", None, 404, "no run"),
        ("GET", "/api/v1/jobs/none", None, 404, "no job"),
        ("GET", "/api/v1/nowhere", None, 404, "nothing is at"),
        ("GET", "/api/v1/files/zz", None, 404, "no file"),
        ("POST", "/api/v1/models/BAD NAME/versions", {"source": "0" * 64, "source_name": "m.keras"}, 422, "model name"),
        ("POST", "/api/v1/models/m/versions", {"source": "0" * 64, "source_name": "m.keras"}, 404, "was not uploaded"),
        ("POST", "/api/v1/models/m/versions", {"source": "short", "source_name": "m"}, 422, "source"),
        ("POST", "/api/v1/models/m/versions", {"nonsense": 1}, 422, "nonsense"),
        ("POST", "/api/v1/runs", {"model": "none", "version": 1}, 404, "no version"),
        ("POST", "/api/v1/imports", {"model": "m", "report": {}, "files": {}}, 422, "source"),
        ("POST", "/api/v1/jobs", {"model": "none", "input": "0" * 64}, 404, "no model is called"),
        ("POST", "/api/v1/rollouts", {"release": "none"}, 404, "no release"),
        ("POST", "/api/v1/claims", {"uses": 0}, 422, "uses"),
        ("POST", "/v2/models/none/infer", {"inputs": []}, 400, "no tensors"),
    ],
)
def test_bad_requests_get_one_clear_error(
    idle: World, method: str, path: str, body: object, status: int, says: str
) -> None:
    response = idle.http.request(method, path, json=body)
    told = response.json()
    assert response.status_code == status, told
    assert says in told["error"]
    assert told["who"] in ("user", "us")


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A controller without devices."""
    with World(tmp_path_factory.mktemp("idle")) as fleet:
        yield fleet


def test_nothing_is_told_without_the_token_and_no_foreign_page_may_call(idle: World) -> None:
    http = idle.http
    paths = [route for route in http.get("/api/v1/openapi.json").json()["paths"] if "{" not in route]
    for path in set(paths) - {"/healthz", "/readyz", "/api/v1/openapi.json", "/api/v1/enroll", "/api/v1/ca"}:
        answers = {
            m: http.request(m, path, headers={"Authorization": "Bearer wrong"}).status_code for m in ("GET", "POST")
        }
        assert set(answers.values()) <= {401, 405}, (path, answers)
    assert http.get("/healthz", headers={"Host": "evil.example"}).status_code == 403
    assert http.get("/healthz", headers={"Origin": "https://evil.example"}).status_code == 403
    assert http.get("/healthz", headers={"Origin": http.base_url.scheme + "://localhost:1"}).status_code == 200


def test_a_claim_lets_one_device_in_and_no_second(idle: World) -> None:
    claim = idle.client.claim().token
    first = idle.http.post("/api/v1/enroll", json=application(claim, PrivateKey.generate()))
    assert first.status_code == 201
    assert {"agent", "broker", "controller_key", "release_key", "device_token"} <= set(first.json())
    second = idle.http.post("/api/v1/enroll", json=application(claim, PrivateKey.generate()))
    assert (second.status_code, second.json()["error"]) == (403, "this claim was used already")
    token = first.json()["device_token"]
    digest = idle.http.put("/api/v1/files", content=b"content").json()["digest"]
    mine = {"Authorization": f"Bearer {token}", "Range": "bytes=3-"}
    part = idle.http.get(f"/api/v1/files/{digest}", headers=mine)
    assert (part.status_code, part.content) == (206, b"tent")
    assert idle.http.get("/api/v1/devices", headers={"Authorization": f"Bearer {token}"}).status_code == 403
