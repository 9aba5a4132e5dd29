"""What the agent survives: dead workers, its own death, changed bytes, a full disk, garbage, lost chunks, no broker."""

from __future__ import annotations

import os
import random
import signal
import ssl
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from agent.contract import topics
from agent.contract.messages import CHUNK_BYTES, AgentStatus, Answer, Hello, Load, Need, Result, encode_tensors
from tests import builders
from tests.certificates import TestAuthority
from tests.fake_controller import AgentProcess, FakeBroker, FakeController, arrays, tensors, until

ROW = {"x": np.linspace(-2, 2, builders.FEATURES, dtype=np.float32).reshape(1, -1)}
PATCH = {"x": np.ones((1, 32, 32, 32), np.int8)}


@pytest.fixture
def agent(tmp_path: Path, controller: FakeController, request: pytest.FixtureRequest) -> Iterator[AgentProcess]:
    """Not started yet. A name of its own: retained messages of other tests are not for it."""
    agent = AgentProcess(tmp_path, controller, f"edge-{abs(hash(request.node.nodeid)) & 0xFFFFFF:x}")
    try:
        yield agent
    finally:
        agent.__exit__(None, None, None)


def test_a_killed_worker_costs_no_request_and_is_replaced(controller: FakeController, agent: AgentProcess) -> None:
    agent.start()
    wanted = controller.serve(agent.name, builders.slow(60))
    asked = [controller.ask(agent.name, wanted, PATCH) for _ in range(5)]
    controller.wait(Answer, lambda a: a.request == asked[0], "the first answer")
    os.kill(agent.workers()[0].pid, signal.SIGKILL)
    for request in asked:
        assert controller.wait(Answer, lambda a, r=request: a.request == r, "every answer").fault is None  # type: ignore[misc]


def test_a_request_that_ends_every_worker_is_answered_with_a_fault_and_the_model_serves_on(
    controller: FakeController, agent: AgentProcess
) -> None:
    agent.start(faults="worker.invoke=kill@1")
    wanted = controller.serve(agent.name, builders.classifier(1))
    answer = controller.infer(agent.name, wanted, ROW)
    assert answer.fault is not None
    assert answer.fault.who == "device"
    assert "ended twice" in answer.fault.message
    controller.desire(agent.name, wanted)
    assert controller.infer(agent.name, wanted, {"x": np.zeros((1, 3), np.float32)}).fault is not None


def test_a_version_whose_worker_dies_while_it_is_watched_is_rolled_back(
    controller: FakeController, agent: AgentProcess, tmp_path: Path
) -> None:
    (tmp_path / f"{agent.name}.toml").write_text("[limits]\nwatch_s = 30\nwatch_answers = 3\n")
    agent.start()
    good = controller.release(builders.classifier(1))
    controller.desire(agent.name, good)
    controller.state(good, "watching")
    for _ in range(3):
        assert controller.infer(agent.name, good, ROW).fault is None
    controller.state(good, "serving")
    fresh = controller.release(builders.classifier(2), version=2)
    generation = controller.desire(agent.name, fresh)
    controller.state(fresh, "watching")
    os.kill(agent.workers()[-1].pid, signal.SIGKILL)
    assert "while watched" in controller.state(fresh, "failed").reason
    assert controller.swap(fresh).outcome == "rolled_back"
    controller.state(good, "serving", generation)
    assert controller.infer(agent.name, good, ROW).version == 1


def test_a_killed_agent_leaves_no_child_and_serves_its_last_good_model_again_without_the_controller(
    controller: FakeController, agent: AgentProcess
) -> None:
    agent.start()
    wanted = controller.serve(agent.name, builders.classifier(1))
    agent.kill()
    assert agent.no_children_left()
    controller.publish(topics.agent(agent.name, "desired"), b"", retain=True)
    controller.blobs.clear()
    controller.forget()
    agent.start()
    hello = controller.wait(Hello, lambda h: h.agent == agent.name, "hello")
    assert hello.generation == 1
    assert [m.manifest for m in hello.models] == [wanted.manifest]
    controller.state(wanted, "serving")
    assert controller.infer(agent.name, wanted, ROW).artifact == wanted.artifact


def test_sigterm_says_offline_drains_and_leaves_nothing_behind(controller: FakeController, agent: AgentProcess) -> None:
    agent.start()
    wanted = controller.serve(agent.name, builders.slow(60))
    asked = [controller.ask(agent.name, wanted, PATCH) for _ in range(2)]
    until(lambda: _held(controller, agent) or bool(controller.heard(Answer)), "a worker computes")
    assert agent.stop() == 0
    assert agent.no_children_left()
    controller.wait(AgentStatus, lambda s: not s.online, "status offline")
    assert {a.request for a in controller.heard(Answer)} == set(asked)


def _held(controller: FakeController, agent: AgentProcess) -> bool:
    return any(worker.cpu_percent(0.02) > 50 for worker in agent.workers())


def test_a_byte_changed_on_disk_is_noticed_at_the_start_and_fetched_anew(
    controller: FakeController, agent: AgentProcess
) -> None:
    agent.start()
    wanted = controller.serve(agent.name, builders.classifier(1))
    assert agent.stop() == 0
    path = agent.folder / "blobs" / wanted.artifact
    path.write_bytes(builders.changed_byte(path.read_bytes()))
    controller.forget()
    agent.start()
    controller.wait(Need, lambda n: n.digest == wanted.artifact, "the changed blob is asked for")
    controller.state(wanted, "serving")
    assert controller.infer(agent.name, wanted, ROW).fault is None


def test_with_the_serving_version_damaged_the_previous_one_serves_meanwhile(
    controller: FakeController, agent: AgentProcess
) -> None:
    agent.start()
    first = controller.serve(agent.name, builders.classifier(1))
    second = controller.serve(agent.name, builders.classifier(2), version=2)
    assert agent.stop() == 0
    path = agent.folder / "blobs" / second.artifact
    path.write_bytes(builders.changed_byte(path.read_bytes()))
    kept = controller.blobs.pop(second.artifact)
    controller.forget()
    agent.start()
    controller.state(first, "serving")
    assert controller.infer(agent.name, second, ROW).artifact == first.artifact
    controller.blobs[second.artifact] = kept
    controller.state(second, "serving")


@pytest.mark.parametrize("fault", ["fetch.write=ENOSPC@3", "blobs.before_rename=ENOSPC@2", "state.write=ENOSPC@4"])
def test_a_full_disk_fails_the_swap_leaves_nothing_half_done_and_a_later_try_succeeds(
    controller: FakeController, agent: AgentProcess, fault: str
) -> None:
    agent.start()
    first = controller.serve(agent.name, builders.classifier(1))
    assert agent.stop() == 0
    controller.forget()
    agent.start(faults=fault)
    second = controller.release(builders.classifier(2), version=2)
    controller.desire(agent.name, second)
    reason = controller.state(second, "failed").reason
    assert "No space left" in reason
    assert controller.infer(agent.name, first, ROW).fault is None
    controller.state(second, "serving")
    assert [p.name for p in (agent.folder / "partial").iterdir()] == []


@pytest.mark.parametrize(
    "point",
    ["fetch.write=kill@4", "blobs.before_rename=kill@2", "blobs.after_rename=kill@3", "state.after_rename=kill@4"],
)
def test_an_agent_killed_anywhere_in_a_swap_finishes_it_after_the_restart(
    controller: FakeController, agent: AgentProcess, point: str
) -> None:
    agent.start()
    first = controller.serve(agent.name, builders.classifier(1))
    assert agent.stop() == 0
    controller.forget()
    agent.start(faults=point)
    controller.wait(Hello, lambda h: h.agent == agent.name, "hello")  # Heard later, it would be taken for the next one.
    second = controller.release(builders.classifier(2), version=2)
    controller.desire(agent.name, second)
    until(lambda: not agent.process.is_running() or agent.process.status() == "zombie", "the agent is killed")
    assert agent.stop() == -signal.SIGKILL
    controller.forget()
    agent.start()
    controller.wait(Hello, lambda h: h.agent == agent.name, "hello")
    assert controller.infer(agent.name, first, ROW).fault is None
    controller.state(second, "serving")
    assert controller.infer(agent.name, second, ROW).version == 2


def test_lost_and_changed_chunks_are_repaired(controller: FakeController, agent: AgentProcess) -> None:
    content = builders.slow(60)
    wanted = controller.release(content)
    assert len(content) > 3 * CHUNK_BYTES
    controller.loses = {(wanted.artifact, 1), (wanted.artifact, 2)}
    controller.changes = {(wanted.artifact, 0)}
    agent.start()
    controller.desire(agent.name, wanted)
    controller.state(wanted, "serving")
    assert controller.infer(agent.name, wanted, PATCH).fault is None


def test_after_a_kill_in_the_middle_only_the_missing_chunks_are_sent_again(
    controller: FakeController, agent: AgentProcess
) -> None:
    content = builders.slow(60)
    wanted = controller.release(content)
    count = -(-len(content) // CHUNK_BYTES)
    controller.stalls_after = 3
    agent.start()
    controller.desire(agent.name, wanted)
    until(lambda: _marked(agent, wanted.artifact) == 3, "three chunks are on disk")
    agent.kill()
    controller.stalls_after = None
    before = len(controller.sent[wanted.artifact])
    agent.start()
    controller.state(wanted, "serving")
    assert before == 3
    assert len(controller.sent[wanted.artifact]) == count
    assert controller.swap(wanted).fetched_bytes < sum(map(len, controller.blobs.values())) - 2 * CHUNK_BYTES


def _marked(agent: AgentProcess, digest: str) -> int:
    path = agent.folder / "partial" / f"{digest}.map"
    return sum(mark != 0 for (mark,) in struct.iter_unpack(">I", path.read_bytes())) if path.exists() else 0


def test_garbage_on_every_topic_is_counted_and_nobody_dies(controller: FakeController, agent: AgentProcess) -> None:
    agent.start()
    wanted = controller.serve(agent.name, builders.classifier(1))
    noise = random.Random(4)
    payloads = [
        b"",
        b"{}",
        b"\xff" * 40,
        b"[" * 100_000,
        noise.randbytes(1000),
        b'{"payload":"","payloadType":"","signatures":[]}',
    ]
    down = [topics.agent(agent.name, kind) for kind in topics.AGENT_DOWN] + [topics.CONTROLLER_STATUS]
    for topic in down:
        for payload in payloads:
            controller.publish(topic, payload)
    count = len(down) * len(payloads)
    controller.wait(Load, lambda load: load.refused >= count, f"{count} refusals")
    assert controller.infer(agent.name, wanted, ROW).fault is None
    assert len(agent.workers()) == 1


def test_wrong_inputs_are_the_users_fault_and_the_worker_lives(controller: FakeController, agent: AgentProcess) -> None:
    agent.start()
    wanted = controller.serve(agent.name, builders.classifier(1))
    worker = agent.workers()[0].pid
    wrong = [
        {"x": np.zeros((1, 3), np.float32)},
        {"y": ROW["x"]},
        {},
        {"x": np.full((1, builders.FEATURES), np.nan, np.float32)},
    ]
    for inputs in wrong:
        answer = controller.infer(agent.name, wanted, inputs)
        assert answer.fault is not None
        assert answer.fault.who == "user"
    assert agent.workers()[0].pid == worker


def test_a_restarted_broker_finds_the_agent_again_and_its_results_are_not_lost(
    tmp_path: Path, agent: AgentProcess
) -> None:
    del agent
    broker = FakeBroker(tmp_path)
    controller = FakeController(broker.broker)
    slow = "[simulate]\nextra_ms_per_row = 300\n[limits]\nwatch_s = 0.1\nload_idle = 0.2\n"
    with AgentProcess(tmp_path, controller, "edge-restart", slow) as mine:
        wanted = controller.serve(mine.name, builders.classifier(1))
        controller.lease(mine.name, wanted, {"x": np.repeat(ROW["x"], 5, axis=0)}, job="long")
        controller.wait(Load, lambda load: load.queue == 1, "the shard is being computed")
        broker.stop()
        controller.close()
        broker.start()
        again = FakeController(broker.broker)
        again.wait(Hello, lambda h: h.agent == mine.name, "hello again")
        assert again.result(job="long").fault is None
        assert again.infer(mine.name, wanted, ROW).fault is None
        again.close()
    broker.stop()


def test_a_shard_is_computed_once_however_often_it_is_leased(controller: FakeController, agent: AgentProcess) -> None:
    agent.start()
    wanted = controller.serve(agent.name, builders.classifier(1))
    rows = {"x": np.repeat(ROW["x"], 5, axis=0)}
    for _ in range(3):
        controller.lease(agent.name, wanted, rows, shard=1)
    result = controller.result(shard=1)
    assert (result.artifact, result.runtime, result.fault) == (wanted.artifact, "ai-edge-litert", None)
    assert arrays(result.outputs)["scores"].shape == (5, builders.CLASSES)
    controller.lease(agent.name, wanted, rows, shard=1)
    controller.lease(agent.name, wanted, rows, shard=1, attempt=2)
    controller.result(shard=1, attempt=2)
    assert len([r for r in controller.heard(Result) if r.attempt == 1]) == 1


def test_a_shard_of_another_artifact_or_runtime_is_handed_back(controller: FakeController, agent: AgentProcess) -> None:
    agent.start()
    wanted = controller.serve(agent.name, builders.classifier(1))
    controller.lease(agent.name, wanted, ROW, shard=1, runtime="tflite-runtime")
    other = controller.release(builders.classifier(2), version=2)
    controller.lease(agent.name, other, ROW, shard=2)
    for shard in (1, 2):
        fault = controller.result(shard=shard).fault
        assert fault is not None
        assert fault.who == "device"


def test_an_expired_request_is_not_computed(controller: FakeController, agent: AgentProcess) -> None:
    agent.start()
    wanted = controller.serve(agent.name, builders.slow(60))
    patient = [controller.ask(agent.name, wanted, PATCH) for _ in range(4)]
    hasty = controller.ask(agent.name, wanted, PATCH, ttl_ms=0.5)
    later = controller.ask(agent.name, wanted, PATCH)
    controller.wait(Answer, lambda a: a.request == later, "the last answer")
    answered = {a.request for a in controller.heard(Answer)}
    assert hasty not in answered
    assert answered >= set(patient)


def test_a_shard_whose_inputs_come_as_a_blob_is_fetched_and_computed(
    controller: FakeController, agent: AgentProcess
) -> None:
    agent.start()
    wanted = controller.serve(agent.name, builders.classifier(1))
    rows = np.tile(ROW["x"], (4000, 1))
    blob = controller.add(encode_tensors(tensors({"x": rows})))
    controller.lease(agent.name, wanted, {}, shard=3, blob=blob)
    result = controller.result(shard=3)
    assert result.fault is None
    assert arrays(result.outputs)["scores"].shape == (4000, builders.CLASSES)


def test_rows_of_a_shard_that_the_disk_changed_are_not_computed_and_come_anew(
    controller: FakeController, agent: AgentProcess
) -> None:
    agent.start()
    wanted = controller.serve(agent.name, builders.classifier(1))
    blob = controller.add(encode_tensors(tensors({"x": np.tile(ROW["x"], (4000, 1))})))
    controller.lease(agent.name, wanted, {}, shard=1, blob=blob)
    whole = controller.result(shard=1)
    place = agent.folder / "blobs" / blob.digest
    place.write_bytes(builders.changed_byte(place.read_bytes()))
    controller.lease(agent.name, wanted, {}, shard=2, blob=blob)
    lost = controller.result(shard=2)
    assert lost.fault is not None
    assert (lost.fault.who, lost.turned_down, lost.outputs) == ("device", True, ())
    assert "changed on disk" in lost.fault.message
    controller.lease(agent.name, wanted, {}, shard=3, blob=blob)
    again = controller.result(shard=3)
    assert (again.fault, again.fetched) == (None, blob.size)
    assert again.outputs == whole.outputs


class _Files(ThreadingHTTPServer):
    """Serves `GET /api/v1/files/{digest}` with Range, and breaks the connection once in the middle."""

    def __init__(self, blobs: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _FilesHandler)
        self.blobs = blobs
        self.asked: list[tuple[str, str, str]] = []
        self.cut_at: int | None = 150_000
        self.sent = 0


class _FilesHandler(BaseHTTPRequestHandler):
    server: _Files

    def do_GET(self) -> None:
        digest, wanted = self.path.rpartition("/")[2], self.headers["Range"]
        self.server.asked.append((digest, wanted, self.headers["Authorization"]))
        content = self.server.blobs[digest]
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        part = content[int(first) : int(last) + 1 if last else len(content)]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if self.server.cut_at is not None and len(part) > self.server.cut_at:
            part, self.server.cut_at = part[: self.server.cut_at], None
        self.server.sent += len(part)
        self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        return


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_over_http_a_cut_costs_only_the_missing_bytes_and_the_token_goes_to_the_controller(
    controller: FakeController, tmp_path: Path, scheme: str
) -> None:
    wanted = controller.release(builders.slow(60))
    files = _Files(controller.blobs)
    authority = TestAuthority()
    if scheme == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.server(tmp_path))
        files.socket = context.wrap_socket(files.socket, server_side=True)
    serving = threading.Thread(target=files.serve_forever, kwargs={"poll_interval": 0.01})
    serving.start()
    config = 'fetch = "http"\n[limits]\nwatch_s = 0.1\nchunk_silence = 0.2\n'
    url = f"{scheme}://127.0.0.1:{files.server_port}"
    ca = authority.pem if scheme == "https" else ""
    with AgentProcess(tmp_path, controller, f"edge-{scheme}", config, controller_url=url, ca=ca) as mine:
        controller.desire(mine.name, wanted)
        controller.state(wanted, "serving")
        record = controller.swap(wanted)
    files.shutdown()
    serving.join()
    files.server_close()
    total = sum(map(len, controller.blobs.values()))
    assert (record.way, record.fetched_bytes) == ("http", total)
    assert total < files.sent < total + CHUNK_BYTES
    assert {token for _, _, token in files.asked} == {"Bearer device-token"}
    assert not controller.heard(Need)


def test_a_new_controller_boot_asks_for_a_hello(controller: FakeController, agent: AgentProcess) -> None:
    agent.start()
    controller.wait(Hello, lambda h: h.agent == agent.name, "hello")
    controller.forget()
    controller.say_online(f"boot-{agent.name}")
    controller.wait(Hello, lambda h: h.agent == agent.name, "hello again")
