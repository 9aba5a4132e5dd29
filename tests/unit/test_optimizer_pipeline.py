"""A run from request to folder, with steps that compute nothing: what is rejected, shared, kept and cleaned up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from optimizer.errors import CancelledError, RefusedError, StepError
from optimizer.pipeline import optimize
from optimizer.runs import RunSpec, read_run
from tests.keras_files import DENSE, model_of, write
from tests.scripted_steps import MEASURED, SOURCE, ScriptedSteps


@pytest.fixture
def run(tmp_path: Path) -> RunSpec:
    source = write(tmp_path / "m.keras", model_of([DENSE]))
    (tmp_path / "d.npz").write_bytes(b"data")
    profiles = ("x86-cpu", "rpi4", "fpga-proxy")
    return RunSpec(
        model="m", version=1, source=str(source), data=str(tmp_path / "d.npz"), profiles=profiles, recipe="ptq"
    )


def go(run: RunSpec, out: Path, steps: ScriptedSteps) -> dict[str, Any]:
    return optimize(run, out, steps, lambda *_: None)


def test_the_report_and_every_file_it_names_lie_in_the_folder(run: RunSpec, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = go(run, out, ScriptedSteps())
    assert msgspec.json.decode((out / "report.json").read_bytes()) == msgspec.json.decode(msgspec.json.encode(report))
    assert [artifact["profile"] for artifact in report["artifacts"]] == list(run.profiles)
    for artifact in report["artifacts"]:
        assert set(artifact["files"]) == {"model", "parity", "acceptance"}
        for file in artifact["files"].values():
            assert (out / file["file"]).stat().st_size == file["size"]
    assert report["source"]["size"] == Path(run.source).stat().st_size
    assert not list(out.glob(".work-*"))


def test_profiles_of_equal_numerics_share_one_conversion(run: RunSpec, tmp_path: Path) -> None:
    steps = ScriptedSteps()
    report = go(run, tmp_path / "out", steps)
    assert steps.ran.count("quantize") == 2
    digests = [artifact["files"]["model"]["digest"] for artifact in report["artifacts"]]
    assert digests[0] == digests[1] != digests[2]


def test_a_profile_that_cannot_be_converted_is_rejected_and_the_others_go_on(run: RunSpec, tmp_path: Path) -> None:
    report = go(run, tmp_path / "out", ScriptedSteps(power_of_two=RefusedError("operator GELU has no form")))
    assert [artifact["profile"] for artifact in report["artifacts"]] == ["x86-cpu", "rpi4"]
    assert report["rejected"] == [{"profile": "fpga-proxy", "reasons": ["operator GELU has no form"], "gate": None}]


def test_a_step_that_crashes_rejects_its_profiles_with_what_happened(run: RunSpec, tmp_path: Path) -> None:
    report = go(run, tmp_path / "out", ScriptedSteps(quantize=StepError("step quantize crashed (SIGSEGV)")))
    assert report["artifacts"] == []
    assert {reason for entry in report["rejected"] for reason in entry["reasons"]} == {
        "step quantize crashed (SIGSEGV)"
    }


@pytest.mark.parametrize(
    ("changed", "profile", "part"),
    [
        ({"paired": {"rows": 400, "float_only": 9, "artifact_only": 0}}, "fpga-proxy", "accuracy: loss 2.25 points"),
        ({"accuracy_acceptance": 0.5}, "x86-cpu", "0.5000 on the acceptance set"),
        ({"operators": ["TANH", "CONV_2D"]}, "fpga-proxy", "operators TANH are not allowed by fpga-proxy"),
        ({"parities": [{"where": "validation", "agreement": 0.5, "sqnr_db": 30.0}]}, "rpi4", "agreement on validation"),
    ],
)
def test_what_breaks_a_promise_of_the_profile_is_rejected_with_the_reason(
    run: RunSpec, tmp_path: Path, changed: dict[str, Any], profile: str, part: str
) -> None:
    report = go(run, tmp_path / "out", ScriptedSteps(evaluate=lambda _: {**MEASURED, **changed}))
    (rejected,) = (entry for entry in report["rejected"] if entry["profile"] == profile)
    assert any(part in reason for reason in rejected["reasons"])


def test_budgets_of_time_and_memory_are_judged_only_on_a_host_of_the_profiles_class(
    run: RunSpec, tmp_path: Path
) -> None:
    tight = tmp_path / "tight.toml"
    tight.write_text('name = "tight"\n[fits]\nmachines = ["x86_64"]\n[budgets]\nlatency_ms = 0.01\nmemory_mb = 0.5\n')
    run = msgspec.structs.replace(run, profiles=(str(tight),))
    (rejected,) = go(run, tmp_path / "out", ScriptedSteps())["rejected"]
    assert "latency of 0.10 ms, the budget is 0.01 ms" in rejected["reasons"]
    assert "memory of 1.0 MB, the budget is 0.5 MB" in rejected["reasons"]
    elsewhere = {**MEASURED, "host": {**msgspec.to_builtins(MEASURED["host"]), "machine": "riscv64"}}
    (artifact,) = go(run, tmp_path / "out", ScriptedSteps(evaluate=lambda _: elsewhere))["artifacts"]
    assert "shown, not judged" in artifact["latency_host"]


def test_a_file_over_its_budget_is_rejected(run: RunSpec, tmp_path: Path) -> None:
    small = tmp_path / "small.toml"
    small.write_text('name = "small"\n[budgets]\nfile_kb = 0.01\n')
    run = msgspec.structs.replace(run, profiles=(str(small),))
    (rejected,) = go(run, tmp_path / "out", ScriptedSteps())["rejected"]
    assert "the budget is 0.01 KB" in rejected["reasons"][0]


def test_strict_judges_every_profile_by_the_bound(run: RunSpec, tmp_path: Path) -> None:
    report = go(msgspec.structs.replace(run, strict=True), tmp_path / "out", ScriptedSteps())
    rejected = {entry["profile"]: entry for entry in report["rejected"]}
    assert "95 % bound of the loss" in rejected["x86-cpu"]["reasons"][0]
    assert rejected["x86-cpu"]["gate"]["strict"]


def test_without_labels_the_report_says_that_parity_alone_decided(run: RunSpec, tmp_path: Path) -> None:
    figures = dict.fromkeys(("accuracy_validation", "accuracy_test", "accuracy_acceptance"))
    unlabelled = {
        **MEASURED,
        "paired": None,
        "accuracy_float": None,
        "accuracy_int8": None,
        "accuracy_acceptance": None,
    }
    steps = ScriptedSteps(
        inspect=lambda _: {**SOURCE, "judged": False, **figures},
        evaluate=lambda _: unlabelled,
    )
    report = go(run, tmp_path / "out", steps)
    assert any("parity alone" in note for note in report["notes"])
    assert report["artifacts"][0]["acceptance"] == {"minimum": 0.0, "tolerated_loss": 1.0}


@pytest.mark.parametrize("step", ["inspect", "quantize", "evaluate"])
def test_a_cancelled_run_leaves_no_report_and_no_work_folder(run: RunSpec, tmp_path: Path, step: str) -> None:
    out = tmp_path / "out"
    go(run, out, ScriptedSteps())
    with pytest.raises(CancelledError):
        go(run, out, ScriptedSteps(**{step: CancelledError("cancelled")}))
    assert not (out / "report.json").exists()
    assert not list(out.glob(".work-*"))


def test_progress_only_grows_and_ends_at_one(run: RunSpec, tmp_path: Path) -> None:
    told: list[float] = []
    optimize(run, tmp_path / "out", ScriptedSteps(), lambda step, profile, fraction, detail: told.append(fraction))
    assert told == sorted(told)
    assert told[-1] == 1.0


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"profiles": ["toaster"]}, "no profile is called 'toaster'"),
        ({"profiles": []}, "key profiles"),
        ({"model": "No Name"}, "model 'No Name' is not usable"),
        ({"version": 0}, "key version"),
        ({"speed": 3}, "unknown key speed"),
        ({"source": "/none/m.keras"}, "/none/m.keras cannot be read"),
        ({"data": "/none/d.npz"}, "/none/d.npz cannot be read"),
        ({"preprocessing": {"height": "8"}}, "key preprocessing"),
    ],
)
def test_a_bad_request_is_refused_before_any_step(
    run: RunSpec, tmp_path: Path, changed: dict[str, Any], part: str
) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(msgspec.json.encode({**msgspec.to_builtins(run), **changed}))
    steps = ScriptedSteps()
    with pytest.raises(RefusedError) as caught:
        go(read_run(path), tmp_path / "out", steps)
    assert part in str(caught.value)
    assert steps.ran == []


def test_a_folder_that_cannot_be_written_is_refused(run: RunSpec, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RefusedError, match="cannot be written"):
        go(run, tmp_path / "file" / "out", ScriptedSteps())


def test_a_full_disk_leaves_no_report(run: RunSpec, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.unit.test_optimizer_pipeline import *\n"
        "run = read_run(Path(sys.argv[1]))\n"
        "try: go(run, Path(sys.argv[2]), ScriptedSteps())\n"
        "except OSError as error: print(error.strerror)\n"
    )
    (tmp_path / "run.json").write_bytes(msgspec.json.encode(run))
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run.json"), str(tmp_path / "out")],
        env={**os.environ, "LEPTA_FAULTS": "optimizer.before_rename=ENOSPC@3"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "No space left" in done.stdout
    assert not (tmp_path / "out" / "report.json").exists()


def test_the_serving_process_imports_neither_tensorflow_nor_numpy() -> None:
    code = "import sys, optimizer.__main__; print({'numpy', 'tensorflow', 'keras'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
