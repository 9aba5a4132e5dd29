"""A real controller with its broker, and real agents, each in processes of their own, for benchmarks to measure."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np

from agent.contract.golden import Array
from agent.contract.manifest import FileRef
from agent.runtime import load
from controller import replies
from controller.client import follow, locate
from controller.client.rest import Client
from controller.errors import LeptaError
from tests.benchmarks.program import PATIENCE_S, Program, ProgramError
from tests.builders import RUNTIMES, file_ref, golden_for


class Fleet:
    """`lepta up` in a fresh data folder. Use as a context manager."""

    def __init__(self, folder: Path, options: Sequence[str] = ("--broker", "embedded")) -> None:
        """`options` of `lepta up`."""
        self.folder = folder
        self.options = tuple(options)
        self.data = folder / "controller"
        self.agents: dict[str, Program] = {}
        self.agent_options: dict[str, Sequence[str]] = {}
        """More arguments of `lepta-agent run`, by device."""

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        arguments = ["up", "--data", str(self.data), "--port", "0", *self.options]
        self.controller = Program("controller.cli", arguments, self.folder / "up.log")
        self.up = self.controller.until(self._is_ready, "the controller's start")
        self.client = Client(locate.in_folder(self.data)).__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.__exit__(None, None, None)
        for program in [*self.agents.values(), self.controller]:
            program.stop()

    def add_agent(
        self, name: str, facts: dict[str, Any] | None = None, limits: dict[str, Any] | None = None
    ) -> Program:
        """Enroll and start an agent; returns when the controller has heard of it. `facts` and `limits` as agent.toml
        has them."""
        home = self.folder / name
        home.mkdir(exist_ok=True)
        token = home / "claim"
        token.write_text(self.client.claim().token)
        config = home / "agent.toml"
        lines = [f'token_file = "{token}"', "[facts]", *_toml(facts), *(["[limits]", *_toml(limits)] if limits else [])]
        config.write_text("\n".join(lines) + "\n")
        return self.start_agent(name)

    def start_agent(self, name: str) -> Program:
        """Start an agent that was added before, and stopped."""
        program = Program("agent.cli", self.agent_arguments(name), self.folder / f"{name}.log")
        self.agents[name] = program
        program.until(lambda: self._is_online(name), f"{name} coming online")
        return program

    def agent_arguments(self, name: str) -> list[str]:
        home = self.folder / name
        known = ["--controller", self.client.place.url, "--name", name, "--data", str(home / "data")]
        return ["run", *known, "--config", str(home / "agent.toml"), *self.agent_options.get(name, ())]

    def push(self, model: str, content: bytes) -> int:
        """Bring in a .tflite as a new version, as `lepta model push` does; returns the version."""
        golden = golden_for(content)
        files = dict(zip(("model", "parity", "acceptance"), (content, *golden), strict=True))
        digests = {f"{role}.bin": self._put(each) for role, each in files.items()}
        digests["source.bin"] = digests["model.bin"]
        report = _report(model, content, {role: file_ref(each) for role, each in files.items()})
        return self.client.import_version(model, report, digests).version

    def roll_out(self, model: str, version: int) -> replies.Rollout:
        """Release and roll out; returns when every device serves. Raises ProgramError if one does not."""
        rollout = self.client.start_rollout(self.client.release(model, version).id)
        until = time.monotonic() + PATIENCE_S
        while rollout.state == "running" and time.monotonic() < until:
            time.sleep(follow.POLL_S)  # As often as `lepta deploy` asks: what follows a rollout is load too.
            rollout = self.client.rollout(rollout.id)
        if rollout.state != "done":
            raise ProgramError(f"the rollout of {model} {version} is {rollout.state}: {rollout.devices}")
        return rollout

    def serves(self, device: str, model: str) -> bool:
        return any(m.model == model and m.state == "serving" for m in self.client.device(device).models)

    def all_serve(self, model: str) -> None:
        """Return when every device is here and does: one that joined late gets by itself what the fleet runs."""
        until = time.monotonic() + PATIENCE_S
        while waiting := [d for d in self.client.devices() if not (d.online and self.serves(d.name, model))]:
            if time.monotonic() > until:
                raise ProgramError(f"{', '.join(device.name for device in waiting)} do not serve {model}")
            time.sleep(follow.POLL_S)

    def put_array(self, array: Array, path: Path) -> str:
        """Upload an array as .npy; returns its digest."""
        np.save(path, array)
        return self.client.put_file(path).digest

    def compute(self, model: str, digest: str, patience_s: float, **options: Any) -> replies.Job:
        """A job over an uploaded input, until its end. Raises RuntimeError if it takes longer, or rows are missing."""
        job = self.client.start_job(model, digest, **options)
        return self.end_of(job, patience_s)

    def end_of(self, job: replies.Job, patience_s: float) -> replies.Job:
        until = time.monotonic() + patience_s
        while job.state in ("queued", "running"):
            if time.monotonic() > until:
                raise RuntimeError(f"the job has not ended after {patience_s:.0f} s: {job}")
            time.sleep(0.5)
            job = self.client.job(job.id)
        if job.state != "done" or job.lost or job.quarantined or job.makespan_s is None:
            raise RuntimeError(f"the job is not whole: {job}")
        return job

    def _put(self, content: bytes) -> str:
        path = self.folder / "upload"
        path.write_bytes(content)
        return self.client.put_file(path).digest

    def _is_ready(self) -> bool:
        try:
            with Client(locate.in_folder(self.data)) as client:
                return client.ready()
        except LeptaError:
            return False

    def _is_online(self, name: str) -> bool:
        return any(device.name == name and device.online for device in self.client.devices())


def _toml(table: dict[str, Any] | None) -> list[str]:
    return [f"{key} = {msgspec.json.encode(value).decode()}" for key, value in (table or {}).items()]


def _report(model: str, content: bytes, files: dict[str, FileRef]) -> dict[str, Any]:
    """What the optimizer would report about a file that somebody else made."""
    loaded = load(content, runtimes=RUNTIMES)
    artifact = {
        "profile": "x86-cpu",
        "files": {role: {"file": f"{role}.bin", "digest": ref.digest, "size": ref.size} for role, ref in files.items()},
        "inputs": msgspec.to_builtins(loaded.inputs),
        "outputs": msgspec.to_builtins(loaded.outputs),
        "operators": list(loaded.operators),
        "bytes": len(content),
        "parity": {"agreement": 0.95, "sqnr_db": 15.0},
        "acceptance": {"minimum": 0.9, "tolerated_loss": 0.02},
        "runtimes": ["ai-edge-litert"],
        "threads": 1,
        "limits": {"memory_mb": 0, "latency_ms": 0},
    }
    source = {"file": "source.bin", "digest": files["model"].digest, "size": files["model"].size}
    return {"model": model, "version": 1, "source": source, "artifacts": [artifact], "rejected": []}
