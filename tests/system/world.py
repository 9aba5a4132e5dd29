"""A real controller with its broker, and real agents, for tests that break things."""

from __future__ import annotations

import ssl
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import msgspec

from agent.runtime import load
from tests.benchmarks.fleet import Fleet
from tests.benchmarks.program import Program
from tests.builders import RUNTIMES, file_ref, golden_for


class World(Fleet):
    """`http` calls the API without the client's help; `restart_controller` brings a killed one back, ports and all."""

    def __enter__(self) -> Self:
        super().__enter__()
        place = self.client.place
        token = {"Authorization": f"Bearer {place.token()}"}
        verify = True if place.ca is None else ssl.create_default_context(cafile=place.ca)
        self.http = httpx.Client(base_url=place.url, headers=token, timeout=20, trust_env=False, verify=verify)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()
        super().__exit__(kind, error, trace)

    def restart_controller(self) -> None:
        port = httpx.URL(self.client.place.url).port
        arguments = ["up", "--data", str(self.data), "--port", str(port), *self.options]
        self.controller = Program("controller.cli", arguments, self.folder / "up-again.log")
        self.controller.until(self._is_ready, "the controller's second start")

    def bring(
        self, model: str, content: bytes, *, judged_by: bytes | None = None, memory_mb: float = 0, **told: object
    ) -> int:
        """A new version of .tflite bytes; its acceptance set is `judged_by`'s, where that is given. It says that it
        needs `memory_mb`. `told`: more that the report says, such as labels."""
        parity, acceptance = golden_for(content)
        if judged_by is not None:
            _, acceptance = golden_for(judged_by)
        contents = {"model": content, "parity": parity, "acceptance": acceptance}
        files = {role: self._stored(role, each) for role, each in contents.items()}
        source = self._stored("source", content)
        loaded = load(content, runtimes=RUNTIMES)
        artifact = {
            "profile": "x86-cpu",
            "files": files,
            "inputs": msgspec.to_builtins(loaded.inputs),
            "outputs": msgspec.to_builtins(loaded.outputs),
            "operators": list(loaded.operators),
            "parity": {"agreement": 0.9, "sqnr_db": 10.0},
            "acceptance": {"minimum": 0.9, "tolerated_loss": 0.02},
            "runtimes": ["ai-edge-litert"],
            "threads": 1,
            "limits": {"memory_mb": memory_mb},
        }
        report = {"source": source, "artifacts": [artifact], **told}
        digests = {str(each["file"]): str(each["digest"]) for each in (*files.values(), source)}
        return self.client.import_version(model, report, digests).version

    def _stored(self, role: str, content: bytes) -> dict[str, str | int]:
        path: Path = self.folder / f"{role}.bin"
        path.write_bytes(content)
        self.client.put_file(path)
        ref = file_ref(content)
        return {"file": path.name, "digest": ref.digest, "size": ref.size}
