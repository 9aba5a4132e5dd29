"""Programs on the device ask its models by HTTP on loopback: a real agent, its workers, swaps and deaths."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import signal
import socket
import threading
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest

from agent.contract.manifest import Shadow
from agent.runtime import load, predict
from controller.client.oip import HEADER_LENGTH, Answer, decode_answer, encode_request, json_request
from tests import builders
from tests.fake_controller import AgentProcess, FakeController, until
from tests.faultpoints import CHILDREN

ROW = {"x": np.linspace(-2, 2, builders.FEATURES, dtype=np.float32).reshape(1, -1)}
LIMITS = "[limits]\nwatch_s = 0.15\nretry_first = 0.2\nload_idle = 0.5\nlocal_mb = 1\n"


class Here:
    """An agent with its local endpoint."""

    def __init__(self, folder: Path, controller: FakeController, name: str, more: str = "") -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        config = f'serve = "127.0.0.1:{self.port}"\n{LIMITS}{more}'
        self.agent = AgentProcess(folder, controller, name, config=config)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def get(self, path: str) -> tuple[int, Any]:
        with closing(self.connect()) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def post(self, path: str, body: bytes = b"") -> tuple[int, Any]:
        with closing(self.connect()) as connection:
            connection.request("POST", path, body)
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def raw(self, sent: bytes) -> bytes:
        """What comes until the agent closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as sock:
            sock.sendall(sent)
            received = b""
            while data := sock.recv(65536):
                received += data
            return received


@pytest.fixture
def here(tmp_path: Path, controller: FakeController, request: pytest.FixtureRequest) -> Iterator[Here]:
    here = Here(tmp_path, controller, f"edge-{request.node.nodeid.__hash__() & 0xFFFFFF:x}")
    with here.agent:
        yield here


def infer(connection: http.client.HTTPConnection, body: bytes, **headers: str) -> tuple[int, Any, bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", "/v2/models/digits/infer", body, named)
    response = connection.getresponse()
    return response.status, response.headers, response.read()


def ask(connection: http.client.HTTPConnection) -> Answer:
    body, length = encode_request(ROW)
    status, headers, content = infer(connection, body, **{HEADER_LENGTH: str(length)})
    assert status == 200, content
    return decode_answer(content, headers[HEADER_LENGTH])


def expected(content: bytes) -> np.ndarray:
    return predict(load(content, runtimes=builders.RUNTIMES), ROW)["scores"]


def stream(here: Here, stop: threading.Event, answers: list[Answer], failures: list[str]) -> None:
    with closing(here.connect()) as connection:
        while not stop.is_set():
            try:
                answers.append(ask(connection))
            except (AssertionError, OSError, http.client.HTTPException) as error:
                failures.append(repr(error))
                connection.close()


def test_the_protocol_is_spoken_as_json_and_with_binary_tensors_over_one_connection(
    controller: FakeController, here: Here
) -> None:
    content = builders.classifier(1)
    wanted = controller.serve(here.agent.name, content)
    with closing(here.connect()) as connection:
        answer = ask(connection)
        assert np.array_equal(answer.outputs["scores"], expected(content))
        assert (answer.version, answer.artifact, answer.device) == (1, wanted.artifact, here.agent.name)
        assert "ai-edge-litert" in answer.runtime
        plain = json_request(ROW, id="mine")
        packed = [(gzip.compress(plain), {"Content_Encoding": "gzip"})]
        packed += [(zlib.compress(plain), {"Content_Encoding": "deflate"})]
        for body, headers in [(plain, {}), *packed]:
            status, told, found = infer(connection, body, **headers)
            assert (status, told["Content-Type"]) == (200, "application/json")
            assert json.loads(found)["id"] == "mine"
            assert np.allclose(decode_answer(found, None).outputs["scores"], expected(content))
    assert here.get("/v2/health/live") == (200, {"live": True})
    assert here.get("/v2/health/ready") == (200, {"ready": True})
    assert here.get("/v2/models/digits/ready") == (200, {"name": "digits", "ready": True})
    status, metadata = here.get("/v2/models/digits/versions/1")
    assert (status, metadata["versions"]) == (200, ["1"])
    [x] = metadata["inputs"]
    assert (x["name"], x["datatype"], x["shape"]) == ("x", "FP32", [-1, builders.FEATURES])
    assert x["parameters"]["stored_datatype"] == "INT8"
    assert {"binary_tensor_data", "statistics", "model_repository"} <= set(here.get("/v2")[1]["extensions"])
    assert here.get("/v2/models/digits/config")[1]["input"][0]["data_type"] == "TYPE_FP32"


def test_requests_are_counted_for_the_version_that_answered(controller: FakeController, here: Here) -> None:
    controller.serve(here.agent.name, builders.classifier(1))
    assert here.get("/v2/models/digits/stats")[1]["model_stats"][0]["inference_count"] == 0
    two = {"x": np.repeat(ROW["x"], 2, axis=0)}
    with closing(here.connect()) as connection:
        for rows in (ROW, two, two):
            assert infer(connection, json_request(rows))[0] == 200
        assert infer(connection, b"{}")[0] == 400
    [stats] = here.get("/v2/models/digits/versions/1/stats")[1]["model_stats"]
    assert (stats["name"], stats["version"], stats["inference_count"], stats["execution_count"]) == (
        "digits",
        "1",
        5,
        3,
    )
    counted = stats["inference_stats"]
    assert (counted["success"]["count"], counted["fail"]["count"]) == (3, 1)
    assert counted["success"]["ns"] > counted["compute_infer"]["ns"] > 0
    assert [(batch["batch_size"], batch["compute_infer"]["count"]) for batch in stats["batch_stats"]] == [
        (1, 1),
        (2, 2),
    ]
    assert here.get("/v2/models/stats")[1]["model_stats"] == [stats]
    assert here.get("/v2/models/digits/versions/7/stats") == (200, {"model_stats": []})
    assert here.get("/v2/models/other/stats")[0] == 404


def test_what_the_device_runs_can_be_listed_and_is_the_controllers_to_change(
    controller: FakeController, here: Here
) -> None:
    until(lambda: _accepts(here.port), "it listens")
    assert here.post("/v2/repository/index") == (200, [])
    controller.serve(here.agent.name, builders.classifier(1))
    ready = {"name": "digits", "version": "1", "state": "READY", "reason": ""}
    assert here.post("/v2/repository/index", b'{"ready": true}') == (200, [ready])
    assert here.post("/v2/repository/index", b"[")[0] == 400
    for verb in ("load", "unload"):
        status, told = here.post(f"/v2/repository/models/digits/{verb}")
        assert status == 403
        assert "decided by its controller" in told["error"]
        assert "lepta rollout start digits" in told["error"]


def test_numbers_as_a_version_stores_them_are_taken_for_that_version_alone(
    controller: FakeController, here: Here
) -> None:
    content = builders.classifier(1)
    controller.serve(here.agent.name, content)
    how = here.get("/v2/models/digits")[1]["inputs"][0]["parameters"]
    stored = np.clip(np.round(ROW["x"] / np.float32(how["scale"])) + how["zero_point"], -128, 127).astype(np.int8)
    body = json_request({"x": stored})
    status, told = here.post("/v2/models/digits/infer", body)
    assert status == 400
    assert "ask versions/N/infer" in told["error"]
    status, told = here.post("/v2/models/digits/versions/1/infer", body)
    assert status == 200
    assert np.allclose(told["outputs"][0]["data"], expected(content).ravel())


def test_what_cannot_be_answered_says_why_and_the_connection_lives_on(controller: FakeController, here: Here) -> None:
    controller.serve(here.agent.name, builders.classifier(1))
    wrong = json_request({"y": ROW["x"]})
    with closing(here.connect()) as connection:
        for body, complaint in ((b"{}", "not an inference request"), (wrong, "this model wants x")):
            status, _, content = infer(connection, body)
            assert status == 400
            assert complaint in json.loads(content)["error"]
        assert ask(connection).version == 1
    assert here.get("/v2/models/other/ready")[0] == 404
    assert here.get("/v2/models/digits/versions/9")[0] == 404
    assert here.get("/v2/models/digits/infer") == (405, {"error": "POST is expected here"})
    assert here.get("/elsewhere")[0] == 404


def test_what_is_no_sound_http_is_answered_and_the_connection_closed(controller: FakeController, here: Here) -> None:
    until(lambda: psutil.Process(here.agent.process.pid).is_running() and _accepts(here.port), "it listens")
    head = b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: localhost\r\n"
    assert here.raw(head + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n").startswith(b"HTTP/1.1 501 ")
    assert here.raw(head + b"Content-Length: 9999999\r\n\r\n").startswith(b"HTTP/1.1 413 ")
    assert here.raw(b"hello\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    refused = here.raw(b"GET /v2 HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
    assert refused.startswith(b"HTTP/1.1 403 ")
    twice = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n%s\r\n"
    assert here.raw(twice % b"" + twice % b"Connection: close\r\n").count(b'{"live":true}') == 2
    with_word = here.raw(b"POST /v2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    assert with_word.startswith(b"HTTP/1.1 405 ")


def test_no_local_request_fails_while_versions_are_swapped_and_a_candidate_shadows_them(
    controller: FakeController, here: Here
) -> None:
    first, content = builders.classifier(1), builders.classifier(2)
    golden = builders.golden_for(content)
    controller.serve(here.agent.name, first)
    shadowed = msgspec.structs.replace(
        builders.manifest_for(content, golden, version=2, sequence=2), shadow=Shadow(requests=40, seconds=10.0)
    )
    second = controller.release(content, version=2, golden=golden, manifest_=shadowed)
    answers: list[Answer] = []
    failures: list[str] = []
    stop = threading.Event()
    streams = [threading.Thread(target=stream, args=(here, stop, answers, failures)) for _ in range(4)]
    for each in streams:
        each.start()
    controller.desire(here.agent.name, second)
    record = controller.swap(second)
    until(lambda: bool(answers) and answers[-1].version == 2, "the new version answers")
    stop.set()
    for each in streams:
        each.join()
    assert failures == []
    assert {answer.version for answer in answers} == {1, 2}
    assert (record.outcome, record.during.failed) == ("committed", 0)
    assert record.shadow is not None
    assert record.shadow.compared > 0
    assert record.shadow.agreed == record.shadow.compared


def test_every_local_request_is_answered_though_workers_die(controller: FakeController, here: Here) -> None:
    content = builders.classifier(1)
    controller.serve(here.agent.name, content)
    answers: list[Answer] = []
    failures: list[str] = []
    stop = threading.Event()
    streams = [threading.Thread(target=stream, args=(here, stop, answers, failures)) for _ in range(4)]
    for each in streams:
        each.start()
    for _ in range(3):
        before = len(answers)
        until(lambda before=before: len(answers) > before + 50, "answers come")  # type: ignore[misc]
        for worker in here.agent.workers():
            os.kill(worker.pid, signal.SIGKILL)
    before = len(answers)
    until(lambda: len(answers) > before + 50, "answers come again")
    stop.set()
    for each in streams:
        each.join()
    assert failures == []
    assert all(np.array_equal(answer.outputs["scores"], expected(content)) for answer in answers)


def test_a_request_that_ends_every_worker_gets_503_and_the_time_to_ask_again(
    tmp_path: Path, controller: FakeController
) -> None:
    assert "worker.invoke" in CHILDREN
    here = Here(tmp_path, controller, "edge-fragile")
    here.agent.start(faults="worker.invoke=kill@1")
    try:
        controller.serve(here.agent.name, builders.classifier(1))
        with closing(here.connect()) as connection:
            status, headers, content = infer(connection, json_request(ROW))
    finally:
        here.agent.stop()
    assert (status, headers["Retry-After"]) == (503, "1")
    assert "ended twice" in json.loads(content)["error"]


def test_requests_that_share_a_worker_with_one_that_ends_it_are_answered(
    tmp_path: Path, controller: FakeController
) -> None:
    here = Here(tmp_path, controller, "edge-shaky", "restart_most = 0.05\n")
    here.agent.start(faults="worker.invoke=kill@25")
    try:
        controller.serve(here.agent.name, builders.classifier(1))
        answers: list[Answer] = []
        failures: list[str] = []
        stop = threading.Event()
        streams = [threading.Thread(target=stream, args=(here, stop, answers, failures)) for _ in range(4)]
        for each in streams:
            each.start()
        until(lambda: len(answers) > 120, "answers by several workers")
        stop.set()
        for each in streams:
            each.join()
    finally:
        here.agent.stop()
    assert failures == []


def test_an_address_that_others_reach_or_that_is_taken_is_refused_at_once(
    tmp_path: Path, controller: FakeController
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for address, complaint in (
            ("0.0.0.0:8001", "neither TLS nor authentication"),
            (f"127.0.0.1:{taken.getsockname()[1]}", "cannot be listened on"),
        ):
            agent = AgentProcess(tmp_path, controller, "edge-door", config=f'serve = "{address}"\n')
            agent.start()
            until(lambda agent=agent: not agent.running, "it gives up")  # type: ignore[misc]
            assert agent.stop() == 2
            assert complaint in agent.log.read_text()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
