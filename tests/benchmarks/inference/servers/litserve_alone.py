"""LitServe: JSON that carries the bytes in base 64. Usage: PYTHON litserve_alone.py MODEL PORT."""

import base64
import sys
from pathlib import Path
from typing import Any

import litserve
import numpy as np
from ai_edge_litert.interpreter import Interpreter


class Api(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: str) -> None:
        self._interpreter = Interpreter(model_content=Path(sys.argv[1]).read_bytes(), num_threads=1)
        self._interpreter.allocate_tensors()
        self._into, self._out_of = self._interpreter.get_input_details()[0], self._interpreter.get_output_details()[0]

    def decode_request(self, request: dict[str, str]) -> Any:
        row = np.frombuffer(base64.b64decode(request["x"]), self._into["dtype"])
        return row.reshape(self._into["shape"])

    def predict(self, row: Any) -> Any:
        self._interpreter.set_tensor(self._into["index"], row)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._out_of["index"])

    def encode_response(self, scores: Any) -> dict[str, str]:
        return {"scores": base64.b64encode(scores.tobytes()).decode()}


if __name__ == "__main__":
    server = litserve.LitServer(Api(api_path="/infer"), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1", port=int(sys.argv[2]), num_api_servers=1, log_level="warning", generate_client_file=False
    )
