"""`agent.Runtime`: an artifact in one's own process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import agent
from agent.inprocess import ModelError, Runtime, RuntimeUnavailable
from agent.runtime import installed, load, predict
from tests import builders

ROWS = np.random.default_rng(1).normal(size=(3, builders.FEATURES)).astype(np.float32)


def test_it_answers_as_a_worker_does_whether_given_bytes_or_a_path(tmp_path: Path) -> None:
    content = builders.classifier()
    file = tmp_path / "model.tflite"
    file.write_bytes(content)
    expected = predict(load(content, runtimes=installed()), {"x": ROWS})["scores"]
    for artifact in (content, file, str(file)):
        assert np.array_equal(agent.Runtime(artifact).infer({"x": ROWS})["scores"], expected)
    assert np.allclose(Runtime(content).infer({"x": ROWS.tolist()})["scores"], expected)


def test_inference_is_quantizing_invoking_and_dequantizing() -> None:
    model = Runtime(builders.classifier())
    stored = model.invoke({"x": model.quantize("x", ROWS)})
    assert stored["scores"].dtype == np.int8
    assert np.array_equal(model.dequantize("scores", stored["scores"]), model.infer({"x": ROWS})["scores"])


def test_it_says_what_it_is() -> None:
    model = Runtime(builders.classifier())
    assert [(spec.name, spec.shape) for spec in (*model.inputs, *model.outputs)] == [("x", (16,)), ("scores", (4,))]
    assert model.name.startswith(installed()[0])
    assert model.operators == ("FULLY_CONNECTED",)


def test_mistakes_say_what_to_do(tmp_path: Path) -> None:
    model = Runtime(builders.classifier())
    with pytest.raises(ModelError, match="this model wants x"):
        model.infer({"y": ROWS})
    with pytest.raises(ModelError, match="there is no tensor 'y' here; there are x"):
        model.quantize("y", ROWS)
    with pytest.raises(ModelError, match="cannot load this model"):
        Runtime(b"nothing")
    with pytest.raises(RuntimeUnavailable, match="none of the runtimes other"):
        Runtime(builders.classifier(), runtimes=["other"])
    with pytest.raises(FileNotFoundError):
        Runtime(tmp_path / "absent.tflite")


@pytest.mark.parametrize("module", ["agent", "agent.supervisor", "agent.local.server"])
def test_only_who_names_it_pays_for_numpy(module: str) -> None:
    code = f"import sys, {module}; sys.exit(bool({{'numpy', 'ai_edge_litert'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
