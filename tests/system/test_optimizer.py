"""The optimizer process on real models: what it makes, what it refuses, and that nothing brings it down."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest

from agent.contract.golden import accuracy, faithfulness, read_acceptance, read_parity
from agent.runtime import installed, load, predict
from controller.errors import LeptaError, UserError
from controller.optimizer_client import Event, Optimizer, optimize_folder
from firmware_profiles.profile import builtin
from optimizer.flatfile import Flatfile

pytestmark = pytest.mark.slow
SMALL = {"epochs": 6, "channels": [32, 64], "seed": 3}
Optimize = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("optimizer")


@pytest.fixture(scope="module")
def optimizer(folder: Path) -> Iterator[Optimizer]:
    with Optimizer(folder / "log") as process:
        process.warm()
        yield process
    assert process.returncode == 0


@pytest.fixture(scope="module")
def models(folder: Path) -> Path:
    """Keras models that only TensorFlow can write."""
    script = Path(__file__).with_name("keras_models.py")
    subprocess.run([sys.executable, script, folder], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def events(optimizer: Optimizer, folder: Path) -> list[tuple[float, Event]]:
    """What was told, and when, while the example was made."""
    told = [(time.monotonic(), event) for event in optimizer.example("digits", folder / "digits", SMALL)]
    assert told[-1][1]["event"] == "done"
    return told


@pytest.fixture(scope="module")
def digits(events: list[tuple[float, Event]]) -> dict[str, Any]:
    report: dict[str, Any] = events[-1][1]["report"]
    return report


@pytest.fixture(scope="module")
def optimize(optimizer: Optimizer, folder: Path, digits: dict[str, Any]) -> Optimize:
    """Run the optimizer on the digits, with parts of the request changed; returns the report."""

    def run(name: str, **changed: Any) -> dict[str, Any]:
        request = {
            "model": "digits",
            "version": 1,
            "source": str(folder / "digits" / "model.keras"),
            "data": str(folder / "digits" / "data.npz"),
            "profiles": ["x86-cpu", "fpga-proxy"],
            "labels": digits["labels"],
            "preprocessing": digits["preprocessing"],
            "recipe": "ptq",
        }
        path = folder / f"{name}.json"
        path.write_text(json.dumps({**request, **changed}))
        *_, last = optimizer.optimize(path, folder / name)
        report: dict[str, Any] = last["report"]
        return report

    return run


@pytest.fixture(scope="module")
def report(optimize: Optimize) -> dict[str, Any]:
    return optimize("run")


def artifact_of(report: dict[str, Any], profile: str) -> dict[str, Any]:
    (found,) = (artifact for artifact in report["artifacts"] if artifact["profile"] == profile)
    assert isinstance(found, dict)
    return found


def content_of(folder: Path, artifact: dict[str, Any], role: str) -> bytes:
    return folder.joinpath("run", str(artifact["files"][role]["file"])).read_bytes()


def test_the_example_learns_digits_and_brings_data_a_batch_and_a_seven(digits: dict[str, Any], folder: Path) -> None:
    assert digits["accuracy"] >= 0.9
    assert set(digits["files"]) == {"model", "data", "batch", "seven"}
    with np.load(folder / "digits" / "batch.npz") as batch:
        assert batch["image"].shape == (1797, 8, 8, 1)
        assert batch["labels"].shape == (1797,)
    assert (folder / "digits" / "seven.png").read_bytes().startswith(b"\x89PNG")


def test_progress_is_told_at_least_once_a_second(events: list[tuple[float, Event]]) -> None:
    times = [at for at, _ in events]
    assert max(later - earlier for earlier, later in pairwise(times)) < 1.5
    assert any("epoch 2 of 6" in event.get("detail", "") for _, event in events)


def test_each_profile_gets_a_full_integer_artifact_that_passed_its_gate(report: dict[str, Any], folder: Path) -> None:
    assert report["rejected"] == []
    for name in ("x86-cpu", "fpga-proxy"):
        artifact = artifact_of(report, name)
        model = load(content_of(folder, artifact, "model"), runtimes=artifact["runtimes"])
        assert artifact["gate"]["passed"]
        assert [spec.dtype for spec in (*model.inputs, *model.outputs)] == ["int8", "int8"]
        assert [spec.name for spec in (*model.inputs, *model.outputs)] == ["image", "scores"]
        assert msgspec.to_builtins(model.inputs[0].shape) == (8, 8, 1)
        assert artifact["bytes"] < report["source"]["size"]
        assert artifact["macs"] == artifact["macs_before"] == report["float"]["macs"]
        assert artifact["latency_ms"] > 0
        assert artifact["latency_runtime"] == model.runtime


def test_the_figures_of_the_report_are_those_of_the_agents_runtime(report: dict[str, Any], folder: Path) -> None:
    artifact = artifact_of(report, "fpga-proxy")
    model = load(content_of(folder, artifact, "model"), runtimes=installed())
    with np.load(folder / "digits" / "data.npz") as data:
        scores = predict(model, {"image": data["test/image"]})["scores"]
        assert artifact["accuracy_int8"] == accuracy(data["test/labels"], scores)
    parity = read_parity(content_of(folder, artifact, "parity"))
    found = faithfulness(parity.outputs, predict(model, parity.inputs))
    assert found.agreement >= artifact["parity"]["agreement"]
    assert found.sqnr_db >= artifact["parity"]["sqnr_db"]
    acceptance = read_acceptance(content_of(folder, artifact, "acceptance"))
    scores = predict(model, acceptance.inputs)["scores"]
    assert accuracy(acceptance.labels, scores) >= artifact["acceptance"]["minimum"]


def test_weights_have_the_scales_that_the_profile_asks_for(report: dict[str, Any], folder: Path) -> None:
    def weight_scales(profile: str) -> list[list[float]]:
        file = Flatfile(content_of(folder, artifact_of(report, profile), "model"))
        return [file.scales(op.inputs[1]) for op in file.operators() if op.name == "CONV_2D"]

    assert [len(scales) for scales in weight_scales("x86-cpu")] == [32, 64]
    powers = [scale for scales in weight_scales("fpga-proxy") for scale in scales]
    assert len(powers) == 2
    assert np.log2(powers) == pytest.approx(np.round(np.log2(powers)), abs=0)


def test_the_report_tells_cost_and_tools_and_holds_the_source(report: dict[str, Any], folder: Path) -> None:
    assert 0 < report["wall_s"] < 120
    assert 50 < report["peak_memory_mb"] < 4000
    assert report["versions"]["tensorflow"] != "not installed"
    assert (folder / "run" / report["source"]["file"]).read_bytes() == (folder / "digits" / "model.keras").read_bytes()


def test_a_later_version_keeps_the_acceptance_set_byte_for_byte(
    report: dict[str, Any], optimize: Optimize, folder: Path
) -> None:
    previous = folder / "run" / "acceptance.npz"
    second = optimize("second", version=2, profiles=["x86-cpu"], seed=9, previous_acceptance=str(previous))
    assert (folder / "second" / "acceptance.npz").read_bytes() == previous.read_bytes()
    assert (
        artifact_of(second, "x86-cpu")["files"]["acceptance"] == artifact_of(report, "x86-cpu")["files"]["acceptance"]
    )


def test_a_badly_trained_version_passes_its_own_gate_and_fails_the_first_acceptance_set(
    optimizer: Optimizer, report: dict[str, Any], optimize: Optimize, folder: Path
) -> None:
    *_, last = optimizer.example("digits", folder / "wrong", {**SMALL, "wrong_labels": True})
    wrong = optimize(
        "wrong-run",
        version=3,
        profiles=["x86-cpu"],
        source=str(folder / "wrong" / "model.keras"),
        data=str(folder / "wrong" / "data.npz"),
        previous_acceptance=str(folder / "run" / "acceptance.npz"),
    )
    assert last["report"]["accuracy"] >= 0.9
    assert artifact_of(wrong, "x86-cpu")["gate"]["passed"]
    assert wrong["float"]["accuracy_acceptance"] < 0.1


def test_several_inputs_and_outputs_without_classes_are_gated_on_parity_alone(
    models: Path, optimize: Optimize, folder: Path
) -> None:
    report = optimize(
        "two",
        source=str(models / "two_inputs.keras"),
        data=str(models / "two_inputs.npz"),
        labels=[],
        preprocessing=None,
        profiles=["x86-cpu", "fpga-proxy"],
    )
    assert report["rejected"] == []
    assert any("parity alone" in note for note in report["notes"])
    artifact = artifact_of(report, "x86-cpu")
    assert sorted(spec["name"] for spec in artifact["inputs"]) == ["a", "b"]
    assert sorted(spec["name"] for spec in artifact["outputs"]) == ["height", "place"]
    assert artifact["accuracy_int8"] is None


def test_an_operator_that_a_profile_does_not_allow_rejects_that_profile_only(models: Path, optimize: Optimize) -> None:
    report = optimize("gelu", source=str(models / "with_gelu.keras"))
    assert "GELU" not in builtin()["fpga-proxy"].operators
    assert [artifact["profile"] for artifact in report["artifacts"]] == ["x86-cpu"]
    assert [entry["profile"] for entry in report["rejected"]] == ["fpga-proxy"]
    assert "operator" in report["rejected"][0]["reasons"][0]


def changed_data(folder: Path, name: str, key: str, change: Callable[[Any], Any]) -> str:
    with np.load(folder / "digits" / "data.npz") as data:
        arrays: dict[str, Any] = {each: data[each] for each in data.files}
    arrays[key] = change(arrays[key])
    np.savez(folder / name, **arrays)
    return str(folder / name)


def test_bad_models_and_bad_data_are_refused_in_one_sentence_and_the_next_run_works(
    models: Path, optimize: Optimize, folder: Path
) -> None:
    whole = (folder / "digits" / "model.keras").read_bytes()
    (folder / "cut.keras").write_bytes(whole[: len(whole) // 2])
    (folder / "none.keras").write_text("no model")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"source": str(folder / "none.keras")}, "none.keras is no model that Lepta knows"),
        ({"source": str(folder / "cut.keras")}, "cut off"),
        ({"source": str(models / "with_lambda.keras")}, "Lambda layer, which runs code"),
        ({"source": str(models / "unknown_size.keras")}, "every size but the first must be fixed"),
        ({"profiles": ["toaster"]}, "no profile is called 'toaster'"),
        ({"labels": ["a", "b"]}, "2 label names were given, the model has 10 classes"),
        ({"data": changed_data(folder, "shape.npz", "test/image", lambda x: x[:, :7])}, "test/image has shape"),
        ({"data": changed_data(folder, "label.npz", "validation/labels", lambda y: y + 1)}, "labels go from 0 to 9"),
        ({"data": changed_data(folder, "pickle.npz", "test/image", lambda x: x.astype(object))}, "pickled objects"),
    ]
    for changed, part in cases:
        with pytest.raises(UserError) as caught:
            optimize("bad", **changed)
        assert part in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (folder / "bad" / "report.json").exists()
    assert artifact_of(optimize("good", profiles=["x86-cpu"]), "x86-cpu")["gate"]["passed"]


def test_unknown_options_of_an_example_are_refused(optimizer: Optimizer, folder: Path) -> None:
    for name, options, part in [
        ("digits", {"epoch": 3}, "unknown key epoch"),
        ("digits", {"epochs": 0}, "key epochs"),
        ("cats", {}, "no example is called 'cats'"),
    ]:
        with pytest.raises(UserError, match=part):
            list(optimizer.example(name, folder / "unknown", options))


def test_a_run_can_be_cancelled_while_it_trains_and_the_next_one_works(optimizer: Optimizer, folder: Path) -> None:
    events = optimizer.example("digits", folder / "cancelled", {**SMALL, "epochs": 100}, request="long")
    wait_for("epoch 2", events)
    optimizer.cancel("long")
    with pytest.raises(UserError, match="cancelled"):
        list(events)
    assert list((folder / "cancelled").iterdir()) == []
    assert list(optimizer.example("digits", folder / "next", {**SMALL, "epochs": 1}))[-1]["event"] == "done"


def test_a_step_that_crashes_is_told_clearly_and_the_next_one_works(optimizer: Optimizer, folder: Path) -> None:
    events = optimizer.example("digits", folder / "crashed", {**SMALL, "epochs": 100})
    wait_for("epoch 2", events)
    # The optimizer, its zygotes, the step of one of them.
    (step,) = (step for zygote in psutil.Process(optimizer.pid).children() for step in zygote.children())
    step.send_signal(signal.SIGSEGV)
    with pytest.raises(LeptaError, match=r"step digits crashed \(SIGSEGV\)") as caught:
        list(events)
    assert caught.value.who == "us"
    assert list(optimizer.example("digits", folder / "next", {**SMALL, "epochs": 1}))[-1]["event"] == "done"


def wait_for(part: str, events: Iterator[Event]) -> None:
    assert any(part in event["detail"] for event in events)


def test_a_killed_optimizer_takes_all_of_its_children_along(folder: Path, digits: dict[str, Any]) -> None:
    with Optimizer(folder / "log") as optimizer:
        events = optimizer.example("digits", folder / "killed", {**SMALL, "epochs": 100})
        wait_for("epoch 1", events)
        family = psutil.Process(optimizer.pid).children(recursive=True)
        os.kill(optimizer.pid, signal.SIGKILL)
        with pytest.raises(LeptaError, match="ended without an answer"):
            list(events)
    assert len(family) >= 2
    gone, alive = psutil.wait_procs(family, timeout=5)
    assert len(gone) == len(family)
    assert not alive


def test_a_folder_can_be_optimized_without_a_controller(folder: Path, digits: dict[str, Any]) -> None:
    told: list[Event] = []
    source, data = folder / "digits" / "model.keras", folder / "digits" / "data.npz"
    report = optimize_folder(source, data, ["x86-cpu"], folder / "alone", on_event=told.append)
    assert json.loads((folder / "alone" / "report.json").read_text()) == report
    assert told
    shutil.rmtree(folder / "alone")
