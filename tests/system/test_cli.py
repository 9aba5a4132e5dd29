"""The command line against a real controller, broker and agents."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agent.contract import children
from agent.runtime import load
from controller.demo.fleet import Fleet, opened
from tests.builders import RUNTIMES, classifier, file_ref, golden_for, random_inputs
from tests.system import cli


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Three agents that serve nothing yet."""
    with opened(tmp_path_factory.mktemp("fleet")) as fleet:
        fleet.add_agents()
        fleet.wait_for_agents()
        yield fleet


@pytest.fixture(scope="module")
def served(fleet: Fleet) -> Fleet:
    """The model `lines` serves, brought in by the command line alone."""
    folder = fleet.folder / "made"
    folder.mkdir()
    write_folder(folder, "lines", {"x86-cpu": classifier(1), "fpga-proxy": classifier(2)})
    pushed = lepta(fleet, "model", "push", str(folder))
    assert pushed.returncode == 0, pushed.stderr
    started = lepta(fleet, "rollout", "start", "lines")
    assert started.returncode == 0, started.stderr
    assert started.stdout.count("serving") == 3
    return fleet


def write_folder(folder: Path, model: str, contents: dict[str, bytes]) -> None:
    """An optimizer's folder, made without TensorFlow: `contents` are .tflite files by profile."""
    artifacts = []
    for profile, content in contents.items():
        parity, acceptance = golden_for(content)
        files: dict[str, Any] = {}
        for role, each in (("model", content), ("parity", parity), ("acceptance", acceptance)):
            name = f"{profile}.{role}"
            (folder / name).write_bytes(each)
            ref = file_ref(each)
            files[role] = {"file": name, "digest": ref.digest, "size": ref.size}
        loaded = load(content, runtimes=RUNTIMES)
        artifacts.append(
            {
                "profile": profile,
                "files": files,
                "inputs": msgspec.to_builtins(loaded.inputs),
                "outputs": msgspec.to_builtins(loaded.outputs),
                "operators": list(loaded.operators),
                "bytes": len(content),
                "parity": {"agreement": 0.95, "sqnr_db": 15.0},
                "acceptance": {"minimum": 0.9, "tolerated_loss": 0.02},
                "runtimes": ["ai-edge-litert"],
                "threads": 1,
                "limits": {"memory_mb": 0, "latency_ms": 0},
                "gate": {"passed": True},
            }
        )
    labels = ["north", "east", "south", "west"]
    (folder / "source.keras").write_bytes(b"the source")
    ref = file_ref(b"the source")
    source = {"file": "source.keras", "digest": ref.digest, "size": ref.size}
    report = {"model": model, "version": 1, "labels": labels, "preprocessing": None, "source": source}
    (folder / "report.json").write_text(json.dumps({**report, "artifacts": artifacts, "rejected": []}))


def environment(fleet: Fleet) -> dict[str, str]:
    return cli.environment(fleet.folder / "controller")


def lepta(fleet: Fleet, *arguments: str, given: bytes | None = None) -> subprocess.CompletedProcess[str]:
    return cli.lepta(fleet.folder / "controller", *arguments, given=given)


def rows(count: int) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = random_inputs(load(classifier(), runtimes=RUNTIMES), count)["x"]
    return array


def test_devices_are_listed_with_their_class_and_what_is_simulated(fleet: Fleet) -> None:
    listed = lepta(fleet, "device", "ls").stdout
    assert listed.count("online") == 3
    assert "online, simulated" in next(line for line in listed.splitlines() if "fpga-1" in line)
    shown = lepta(fleet, "device", "show", "fpga-1").stdout
    assert "set by hand: accelerators" in shown
    assert "fpga-proxy" in shown


def test_an_answer_names_its_label_and_its_way_can_be_traced(served: Fleet) -> None:
    np.save(served.folder / "one.npy", rows(1)[0])
    asked = lepta(served, "infer", "lines", str(served.folder / "one.npy"))
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.split()[0] in ("north", "east", "south", "west")
    assert "lines version 1" in asked.stdout
    request = asked.stdout.rsplit("request ", 1)[1].strip()
    traced = lepta(served, "trace", request)
    assert traced.returncode == 0, traced.stderr
    for step in ("user request", "optimized?", "distribute", "compute", "result?", "response"):
        assert step in traced.stdout


def test_the_same_request_is_taken_over_mqtt(served: Fleet) -> None:
    np.save(served.folder / "one.npy", rows(1)[0])
    request = lepta(served, "infer", "lines", str(served.folder / "one.npy"), "--as-json", "--client", "me").stdout
    listening = subprocess.Popen(
        [*children.command("controller.cli"), "sub", "lepta/v1/clients/me/answer", "--count", "1"],
        env=environment(served),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        # The subscription needs a moment; what is published before it is nobody's.
        deadline = time.monotonic() + 20
        while listening.poll() is None and time.monotonic() < deadline:
            lepta(served, "pub", "lepta/v1/models/lines/infer", "-", given=request.encode())
        out, _ = listening.communicate(timeout=10)
    finally:
        listening.kill()
        listening.wait()
    topic, answer = out.split(maxsplit=1)
    assert topic == "lepta/v1/clients/me/answer"
    assert json.loads(answer)["outputs"]


def test_a_job_scores_every_row_and_writes_the_result(served: Fleet) -> None:
    np.savez(served.folder / "rows.npz", x=rows(200))
    out = served.folder / "result.npz"
    done = lepta(served, "job", "run", "lines", "--input", str(served.folder / "rows.npz"), "--output", str(out))
    assert done.returncode == 0, done.stderr
    with np.load(out) as result:
        assert result["id"].tolist() == list(range(200))
        assert (result["label"] >= 0).all()
    assert "200" in lepta(served, "job", "ls").stdout


def test_signed_and_binary_messages_can_be_read_by_people(served: Fleet) -> None:
    desired = lepta(served, "sub", "lepta/v1/agents/agent-1/desired", "--count", "1")
    assert '"signed":{' in desired.stdout
    assert '"agent":"agent-1"' in desired.stdout


def test_what_is_wrong_is_told_in_one_line_and_nothing_happens(served: Fleet) -> None:
    np.save(served.folder / "bad.npy", np.zeros((1, 3), np.float32))
    bad_shape = lepta(served, "infer", "lines", str(served.folder / "bad.npy"))
    unknown = lepta(served, "infer", "circles", str(served.folder / "bad.npy"))
    (served.folder / "not.keras").write_bytes(b"this is no model")
    np.savez(served.folder / "d.npz", x=np.zeros(3))
    files = [str(served.folder / "not.keras"), "--data", str(served.folder / "d.npz")]
    profile = lepta(served, "deploy", *files, "--profile", "toaster")
    for done in (bad_shape, unknown, profile):
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert "Traceback" not in done.stderr
    assert "toaster" in profile.stderr
    assert "not " not in lepta(served, "model", "ls").stdout


def test_ctrl_c_while_listening_is_calm(fleet: Fleet) -> None:
    listening = subprocess.Popen(
        [*children.command("controller.cli"), "sub", "lepta/v1/#"],
        env=environment(fleet),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert listening.stdout is not None
    listening.stdout.readline()
    os.kill(listening.pid, signal.SIGINT)
    _out, err = listening.communicate(timeout=10)
    assert listening.returncode == 130, err
    assert err == "stopped\n"
