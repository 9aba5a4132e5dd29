"""The agent as real processes on a real broker: it takes a model, swaps it under load, and refuses what is not good."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from agent.contract import topics
from agent.contract.manifest import Acceptance, Limits, Manifest, Parity, Target
from agent.contract.messages import Answer, Desired, DesiredModel, Hello, Load, Reply, Reported
from agent.contract.root import Root, seal_root
from agent.contract.signing import PrivateKey
from tests import builders
from tests.fake_controller import AgentProcess, FakeController, arrays, until

ROW = {"x": np.linspace(-2, 2, builders.FEATURES, dtype=np.float32).reshape(1, -1)}


@pytest.fixture
def agent(tmp_path: Path, controller: FakeController, request: pytest.FixtureRequest) -> Iterator[AgentProcess]:
    name = f"edge-{request.node.nodeid.__hash__() & 0xFFFFFF:x}"  # Retained messages of other tests are not for us.
    with AgentProcess(tmp_path, controller, name) as agent:
        yield agent


def test_a_desired_model_is_fetched_probed_and_serves_and_the_record_says_what_it_cost(
    controller: FakeController, agent: AgentProcess
) -> None:
    hello = controller.wait(Hello, lambda h: h.agent == agent.name, "hello")
    assert hello.generation == 0
    assert "ai-edge-litert" in hello.facts.runtimes
    wanted = controller.release(builders.classifier(1))
    generation = controller.desire(agent.name, wanted)
    state = controller.state(wanted, "serving", generation)
    assert "ai-edge-litert" in state.runtime
    record = controller.swap(wanted)
    assert (record.outcome, record.way, record.from_version) == ("committed", "mqtt", None)
    assert record.fetched_bytes == sum(map(len, controller.blobs.values()))
    assert record.probe is not None
    assert record.probe.accuracy == 1.0
    assert record.probe.memory_mb > 1
    answer = controller.infer(agent.name, wanted, ROW)
    assert (answer.fault, answer.artifact, answer.version) == (None, wanted.artifact, 1)
    assert arrays(answer.outputs)["scores"].shape == (1, builders.CLASSES)


def test_no_request_fails_while_a_version_is_swapped_in_under_a_steady_stream(
    controller: FakeController, agent: AgentProcess
) -> None:
    first, second = _serving(controller, agent, 1), controller.release(builders.classifier(2), version=2)
    asked: list[str] = []
    stop = threading.Event()

    def stream() -> None:
        while not stop.wait(0.005):
            asked.append(controller.ask(agent.name, first, ROW))

    streaming = threading.Thread(target=stream)
    streaming.start()
    time.sleep(0.5)
    controller.desire(agent.name, second)
    record = controller.swap(second)
    stop.set()
    streaming.join()
    until(lambda: len(controller.heard(Answer)) >= len(asked), "every request is answered")
    answers = controller.heard(Answer)
    assert [a.fault for a in answers if a.fault] == []
    assert {a.artifact for a in answers} == {first.artifact, second.artifact}
    assert (record.outcome, record.from_version, record.gap_ms) == ("committed", 1, 0.0)
    assert record.during.requests > 0
    assert record.during.failed == 0
    assert record.control.requests > 0


def test_a_badly_trained_version_is_refused_by_its_acceptance_set_and_the_old_one_serves_on(
    controller: FakeController, agent: AgentProcess
) -> None:
    good = _serving(controller, agent, 1)
    bad_file, (_, acceptance) = builders.classifier(wrong=True), builders.golden_for(builders.classifier(1))
    bad = controller.release(bad_file, version=2, golden=(builders.golden_for(bad_file)[0], acceptance))
    controller.desire(agent.name, bad)
    assert "acceptance set" in controller.state(bad, "refused").reason
    record = controller.swap(bad)
    assert record.outcome == "refused"
    assert record.probe is not None
    assert record.probe.agreement == 1.0
    assert controller.infer(agent.name, good, ROW).version == 1


def test_an_unfit_artifact_is_refused_with_its_reason_and_nothing_else_changes(
    controller: FakeController, agent: AgentProcess
) -> None:
    good = _serving(controller, agent, 1)
    sound = builders.classifier(1)
    golden = builders.golden_for(sound)
    like = builders.manifest_for(sound, golden, version=2)
    cut, custom = builders.truncated(sound), builders.custom_operator()
    stranger = PrivateKey.generate()
    unfit: list[tuple[str, bytes, Manifest, PrivateKey | None]] = [
        ("finite", builders.nan(), builders.manifest_for(builders.nan(), golden, version=2), None),
        ("cannot load", custom, _with_file(like, custom), None),
        ("cannot load", cut, _with_file(like, cut), None),
        ("not trusted", sound, like, stranger),
        ("needs the runtime", sound, _replace(like, runtimes=("another-runtime",)), None),
        ("operators that its manifest does not name", sound, _replace(like, operators=()), None),
        ("not those of its manifest", sound, _replace(like, inputs=()), None),
        ("the limit is", sound, _replace(like, limits=Limits(memory_mb=0.5)), None),
        ("is needed", sound, _replace(like, parity=Parity(agreement=1.0, sqnr_db=1000.0)), None),
    ]
    for expected, content, described, key in unfit:
        bad = controller.release(content, golden=golden, manifest_=described, key=key)
        controller.desire(agent.name, bad)
        assert expected in controller.state(bad, "refused").reason
        assert controller.swap(bad).outcome == "refused"
        controller.forget()
        assert controller.infer(agent.name, good, ROW).artifact == good.artifact
    until(lambda: len(agent.workers()) == 1, "every candidate is gone")


def test_a_version_below_the_floor_is_refused(controller: FakeController, agent: AgentProcess) -> None:
    wanted = controller.release(builders.classifier(1))
    controller.desire(agent.name, wanted, minimum_sequence={"digits": 2})
    assert "floor" in controller.state(wanted, "refused").reason


def test_a_stale_or_misdirected_version_is_refused_with_its_cause_which_the_device_counts(
    controller: FakeController, agent: AgentProcess
) -> None:
    good = _serving(controller, agent, 1)
    sound = builders.classifier(2)
    golden = builders.golden_for(sound)
    like = builders.manifest_for(sound, golden, version=2)
    wrong: list[tuple[str, Manifest, PrivateKey | None]] = [
        ("key", like, PrivateKey.generate()),
        ("expired", _replace(like, expires_at=1_700_000_000), None),
        ("target", _replace(like, target=Target(("edge-x",), ("site=south",))), None),
        ("operator", _replace(like, operators=("NO_SUCH",)), None),
        ("runtime", _replace(like, runtime_minimum={"ai-edge-litert": "99", "tflite-runtime": "99"}), None),
    ]
    for cause, described, key in wrong:
        bad = controller.release(sound, golden=golden, manifest_=described, key=key)
        controller.desire(agent.name, bad, labels={"site": "north"})
        assert controller.state(bad, "refused").cause == cause
        assert controller.swap(bad).cause == cause
        controller.forget()
    controller.wait(Load, lambda load: load.refusals == {cause: 1 for cause, *_ in wrong}, "the counts by cause")
    assert controller.infer(agent.name, good, ROW).version == 1


def test_a_group_that_the_operator_gave_the_device_counts(controller: FakeController, agent: AgentProcess) -> None:
    wanted = controller.release(
        b"",
        manifest_=_replace(
            builders.manifest_for(builders.classifier(1), builders.golden_for(builders.classifier(1))),
            target=Target((), ("site=north",)),
        ),
        golden=builders.golden_for(builders.classifier(1)),
    )
    controller.add(builders.classifier(1))
    controller.desire(agent.name, wanted, labels={"site": "north"})
    controller.state(wanted, "serving")


def test_a_release_key_is_rotated_while_the_old_version_serves_on_also_after_a_restart(
    controller: FakeController, agent: AgentProcess
) -> None:
    good = _serving(controller, agent, 1)
    old, root_key, fresh = controller.release_key, PrivateKey.generate(), PrivateKey.generate()
    document = Root(version=1, root_key=root_key.public.pem(), release_keys=(fresh.public.pem(),))
    roots = (seal_root(document, [old, root_key]).decode(),)
    by_old = controller.release(builders.classifier(2), version=2, key=old)
    controller.desire(agent.name, by_old, roots=roots)
    assert controller.state(by_old, "refused").cause == "key"
    assert controller.infer(agent.name, good, ROW).version == 1
    agent.stop()
    controller.forget()
    agent.start()
    controller.wait(Hello, lambda h: h.agent == agent.name and h.root == 1, "a hello that names the root")
    controller.state(good, "serving")
    controller.forget()
    by_fresh = controller.release(builders.classifier(3), version=3, key=fresh)
    controller.desire(agent.name, by_fresh)
    controller.state(by_fresh, "serving")


def test_accuracy_lost_against_the_serving_version_is_refused_though_the_minimum_is_kept(
    controller: FakeController, agent: AgentProcess
) -> None:
    _serving(controller, agent, 1)
    worse = builders.classifier(wrong=True)
    golden = (builders.golden_for(worse)[0], builders.golden_for(builders.classifier(1))[1])
    bad = controller.release(worse, version=2, golden=golden, acceptance=Acceptance(minimum=0.0, tolerated_loss=0.02))
    controller.desire(agent.name, bad)
    assert "against what serves" in controller.state(bad, "refused").reason


def test_an_older_generation_or_another_agents_or_a_forged_desired_state_changes_nothing(
    controller: FakeController, agent: AgentProcess
) -> None:
    good = _serving(controller, agent, 1)
    other = controller.release(builders.classifier(2), version=2)
    controller.desire(agent.name, other, generation=controller.generation - 1)
    controller.publish(
        topics.agent(agent.name, "desired"), controller.stamper.encode(Desired(agent=agent.name, generation=99))
    )
    controller.controller_key = PrivateKey.generate()
    controller.desire(agent.name, other, generation=100)
    controller.wait(Load, lambda load: load.refused >= 3, "three refusals")
    assert controller.infer(agent.name, good, ROW).version == 1


def test_an_undesired_model_leaves_with_its_worker(controller: FakeController, agent: AgentProcess) -> None:
    good = _serving(controller, agent, 1)
    generation = controller.desire(agent.name)
    controller.wait(Reported, lambda r: r.generation == generation and not r.models, "an empty report")
    until(lambda: not agent.workers(), "the worker is gone")
    assert controller.infer(agent.name, good, ROW).fault is not None


def test_a_signed_command_is_executed_once(controller: FakeController, agent: AgentProcess) -> None:
    _serving(controller, agent, 1)
    for _ in range(2):
        controller.command(agent.name, "measure", "first", model="digits")
    controller.command(agent.name, "log-level", "second", level="loud")
    controller.wait(Reply, lambda r: r.id == "second" and not r.ok and "allowed" in r.message, "a refused level")
    controller.wait(Reply, lambda r: r.id == "first", "a measured latency")
    controller.command(agent.name, "measure", "third", model="digits")
    controller.wait(Reply, lambda r: r.id == "third", "a later measurement")
    replies = [r for r in controller.heard(Reply) if r.id == "first"]
    assert len(replies) == 1
    assert replies[0].ok
    assert replies[0].values["latency_ms"] > 0


def test_a_recorded_command_does_nothing_in_another_session(controller: FakeController, agent: AgentProcess) -> None:
    assert controller.session_of(agent.name)
    for session in ("", "an-earlier-one"):
        controller.command(agent.name, "log-level", f"replayed {session}", session=session, level="debug")
    controller.command(agent.name, "log-level", "now", level="info")
    controller.wait(Reply, lambda r: r.id == "now" and r.ok, "the command of this session")
    assert [r.id for r in controller.heard(Reply)] == ["now"]
    assert "a command for another session (an-earlier-one)" in agent.log.read_text()


def _serving(controller: FakeController, agent: AgentProcess, version: int) -> DesiredModel:
    return controller.serve(agent.name, builders.classifier(version), version=version)


def _replace(manifest: Manifest, **changes: object) -> Manifest:
    return msgspec.structs.replace(manifest, **changes)


def _with_file(manifest: Manifest, content: bytes) -> Manifest:
    return _replace(manifest, files={**manifest.files, "model": builders.file_ref(content)})
