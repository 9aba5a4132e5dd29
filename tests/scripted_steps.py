"""The port of steps, answering from a script: what every pass of the optimizer would say of a small model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from optimizer.errors import OptimizerError
from optimizer.passes import PASSES, PRELOADS, Kind, Progress
from optimizer.steps import Finished, Work

SPECS = [{"name": "x", "dtype": "float32", "shape": [16]}]
OPENED = {
    "kind": "keras",
    "inputs": SPECS,
    "outputs": [{"name": "scores", "shape": [4]}],
    "classes": 4,
    "parameters": 90,
    "macs": 80,
}
DATASET: dict[str, Any] = {
    "splits": {
        name: {"rows": 400, "digest": f"{at}" * 64, "labelled": True}
        for at, name in enumerate(("train", "calibration", "validation", "test"))
    },
    "labelled": True,
    "trainable": True,
    "notes": [],
}
SOURCE: dict[str, Any] = {
    "parameters": 90,
    "macs": 80,
    "judged": True,
    "inputs": SPECS,
    "accuracy_validation": 0.95,
    "accuracy_test": 0.94,
    "accuracy_acceptance": 0.95,
}
TRAINED = {"steps": 40, "epoch_s": 0.5, "wall_s": 2.0}
PRUNED: dict[str, Any] = {
    **TRAINED,
    "before": {"parameters": 90, "macs": 80},
    "after": {"parameters": 30, "macs": 25},
    "groups": {"hidden/units": {"channels": 16, "free": 16, "kept": 5}},
    "barriers": [{"path": "odd", "kind": "Odd", "reason": "no rule"}],
    "blocks": [],
}
MEASURED: dict[str, Any] = {
    "paired": {"rows": 400, "float_only": 2, "artifact_only": 1},
    "parities": [
        {"where": where, "agreement": 0.99, "sqnr_db": 30.0, "cosine": 0.999, "max_error": 0.01, "judged": judged}
        for where, judged in (("the parity set", ["agreement", "sqnr_db"]), ("validation", ["agreement", "sqnr_db"]))
    ],
    "accuracy_float": 0.94,
    "accuracy_int8": 0.935,
    "accuracy_acceptance": 0.945,
    "inputs": [{"name": "x", "dtype": "int8", "shape": [16], "scale": 0.1, "zero_point": 0}],
    "outputs": [{"name": "scores", "dtype": "int8", "shape": [4], "scale": 0.1, "zero_point": 0}],
    "operators": ["FULLY_CONNECTED"],
    "parameters": 68,
    "macs": 64,
    "memory_mb": 1.0,
    "latency_ms": 0.1,
    "latency_runtime": "ai-edge-litert 0, XNNPACK",
    "host": {"machine": "x86_64", "memory_mb": 4000, "runtimes": ["ai-edge-litert"]},
}
ERRORS: dict[str, Any] = {
    "layers": [
        {
            "name": "hidden",
            "operator": "FULLY_CONNECTED",
            "sqnr_db": 30.0,
            "own_sqnr_db": 31.0,
            "max_error": 0.1,
            "bytes": 9,
            "macs": 8,
        }
    ],
    "worst": ["hidden", "scores", "relu"],
}
SAID: Mapping[str, dict[str, Any]] = {
    "open-keras": OPENED,
    "dataset": DATASET,
    "inspect": SOURCE,
    "prune": PRUNED,
    "sparsify": {**TRAINED, "zeros": 0.66},
    "distill": TRAINED,
    "evaluate": MEASURED,
    "errors": ERRORS,
}
FILES = {
    "open-keras": ("model.keras",),
    "dataset": ("data.npz",),
    "inspect": ("parity.npz", "acceptance.npz", "outputs.npz"),
    **dict.fromkeys(("prune", "sparsify", "distill"), ("model.keras",)),
    "quantize": ("model.tflite", "float.tflite"),
    **dict.fromkeys(("qat", "power-of-two"), ("model.tflite",)),
}
Answer = Callable[[Work], dict[str, Any]]


class ScriptedSteps:
    """Writes the files of a pass, with contents that tell its inputs and settings apart, and says what the script says.

    `script`: by the pass's name with underscores, what it answers or the error that it raises.
    """

    def __init__(self, **script: Answer | OptimizerError) -> None:
        self._script = {name.replace("_", "-"): answer for name, answer in script.items()}
        self.works: list[Work] = []

    @property
    def ran(self) -> list[str]:
        return [work.name for work in self.works]

    def warm(self, *kinds: Kind) -> None:
        assert set(kinds) <= set(PRELOADS)

    def run(self, work: Work, progress: Progress) -> Finished:
        self.works.append(work)
        progress(0.5, "half")
        told = [path.read_text(errors="replace")[-9999:] for _, path in sorted(work.inputs.items())]
        for name in FILES.get(work.name, ()):
            (work.out / name).write_text("\n".join((f"'{work.name}' {name} {work.settings}", *told)))
        answer = self._script.get(work.name)
        if isinstance(answer, OptimizerError):
            raise answer
        return Finished(SAID.get(work.name, {}) if answer is None else answer(work), 1.0, 100.0)


assert set(SAID) <= set(PASSES), "a pass that is scripted here is gone"
