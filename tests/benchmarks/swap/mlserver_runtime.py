"""LiteRT as a runtime of MLServer: lies beside its model-settings.json, and is imported in its environment."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from mlserver.utils import get_model_uri


class LiteRT(MLModel):  # type: ignore[misc]
    """One float input, one float output; says in each answer, as a parameter, which file it was built from."""

    async def load(self) -> bool:
        self._build(Path(await get_model_uri(self.settings)))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        given = payload.inputs[0]
        row = np.asarray(given.data.root, np.float32).reshape(given.shape)
        scores = self._invoke(row)
        output = ResponseOutput(name="scores", shape=list(scores.shape), datatype="FP32", data=scores.ravel().tolist())
        return InferenceResponse(model_name=self.name, outputs=[output], parameters={"artifact": self._digest})

    def _build(self, file: Path) -> None:
        content = file.read_bytes()
        self._digest = hashlib.sha256(content).hexdigest()
        self._interpreter = Interpreter(model_content=content, num_threads=1)
        self._interpreter.allocate_tensors()

    def _invoke(self, row: Any) -> Any:
        taker, giver = self._interpreter.get_input_details()[0], self._interpreter.get_output_details()[0]
        self._interpreter.set_tensor(taker["index"], _stored(row, taker))
        self._interpreter.invoke()
        scale, zero = giver["quantization"]
        return (self._interpreter.get_tensor(giver["index"]).astype(np.float32) - zero) * np.float32(scale)


def _stored(row: Any, detail: dict[str, Any]) -> Any:
    scale, zero = detail["quantization"]
    return np.clip(np.rint(row / scale) + zero, -128, 127).astype(detail["dtype"])
