"""The Python API with real children: from a program that has TensorFlow, from one that has not, and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from sklearn.datasets import load_digits

import optimizer
from agent.contract.children import environment

pytestmark = pytest.mark.slow
# What a terminal does at Ctrl-C: the signal goes to every process of the group.
INTERRUPTED = """
import sys, optimizer
def tell(step, profile, fraction, detail):
    print(step, fraction, detail, flush=True)
optimizer.optimize(sys.argv[1], sys.argv[2], recipe="ptq", out=sys.argv[3], progress=tell)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """What the program printed, and where it saved its result."""
    folder = tmp_path_factory.mktemp("api") / "saved"
    script = Path(__file__).with_name("api_script.py")
    done = subprocess.run(
        [sys.executable, script, folder], check=True, stdout=subprocess.PIPE, env=environment(), timeout=900
    )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer, folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    digits = load_digits()
    path = tmp_path_factory.mktemp("rows") / "data.npz"
    np.savez(path, x=(digits.data / 16).astype(np.float32), labels=digits.target)
    return path


def test_a_program_with_tensorflow_optimizes_its_model_object_and_arrays(made: tuple[dict[str, Any], Path]) -> None:
    answer, folder = made
    assert answer["accuracy"] > 0.85
    assert answer["bytes"] < 8_000
    assert {"inspect", "quantize", "evaluate"} <= set(answer["told"])
    assert {"report.json", "report.html", answer["file"]} <= set(answer["saved"])
    assert "x86-cpu" in answer["text"]
    assert answer["page"]
    assert answer["still works"]
    assert (folder / answer["file"]).stat().st_size == answer["bytes"]


def test_the_same_by_paths_without_labels_from_a_program_without_tensorflow(
    made: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    source = next(made[1].glob("source*"))
    x = (load_digits().data / 16).astype(np.float32)
    result = optimizer.optimize(source, x, "x86-cpu", "ptq", out=tmp_path / "out")
    assert result.folder == tmp_path / "out"
    assert result.artifacts["x86-cpu"].accuracy is None
    assert result.artifacts["x86-cpu"].facts.agreement > 0.9
    assert not psutil.Process().children(recursive=True)


def test_ctrl_c_ends_the_run_and_all_its_children(
    made: tuple[dict[str, Any], Path], rows: Path, tmp_path: Path
) -> None:
    source = next(made[1].glob("source*"))
    command = [sys.executable, "-c", INTERRUPTED, str(source), str(rows), str(tmp_path / "out")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert any(line.startswith("inspect") and "starting" not in line for line in process.stdout)
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        os.killpg(process.pid, signal.SIGINT)
        said = process.stderr.read()
        process.wait(20)
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert said.count("Traceback") == 1
    gone, alive = psutil.wait_procs(children, timeout=2)
    assert not alive
    assert len(gone) == len(children)
    assert not list(tmp_path.rglob("*.tflite"))
