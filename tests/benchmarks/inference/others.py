"""Other servers of the benchmark's model, each in processes of its own, and how each is asked."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil

from agent.contract import children
from agent.contract.golden import Array
from tests.benchmarks import measure
from tests.benchmarks.inference.environment import python
from tests.benchmarks.inference.wrk import Target

_SERVERS = Path(__file__).parent / "servers"
_PATIENCE_S = 60.0
_JSON = {"Content-Type": "application/json"}
_RAW = {"Content-Type": "application/octet-stream"}


class Server:
    """A server that answers `target`. Stop it by `stop`."""

    def __init__(self, command: Sequence[str], folder: Path, log: Path, target: Target, extra: dict[str, str]) -> None:
        self.target = target
        self._log = log
        with log.open("wb") as file:
            environment = children.environment({"PYTHONSAFEPATH": "", **extra})
            self._process = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )

    @property
    def pids(self) -> list[int]:
        return measure.tree(self._process.pid)

    def answer(self) -> bytes:
        """Its answer to `target`, as soon as it gives one. Raises RuntimeError with its log."""
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until and self._process.poll() is None:
            try:
                return ask(self.target)
            except (OSError, urllib.error.URLError):
                time.sleep(0.1)
        raise RuntimeError(f"{self.target.url} does not answer:\n{self._log.read_text(errors='replace')[-3000:]}")

    def stop(self) -> None:
        """With all that it has started: not every server takes its own with it."""
        started = [psutil.Process(pid) for pid in self.pids]
        self._process.terminate()
        _, left = psutil.wait_procs(started, 5)
        for process in left:
            process.kill()
        psutil.wait_procs(left)
        self._process.wait()


def ask(target: Target) -> bytes:
    request = urllib.request.Request(target.url, target.body, target.headers)
    with urllib.request.urlopen(request, timeout=20) as response:
        content: bytes = response.read()
    return content


def start(model: Path, row: Array, folder: Path) -> dict[str, Server]:
    """MLServer, FastAPI alone and LitServe, with the model's input as it is stored: nobody quantizes."""
    interpreter, raw = str(python()), row.tobytes()
    ports = free_ports(5)
    text = base64.b64encode(raw).decode()
    fastapi = Target(f"http://127.0.0.1:{ports[0]}/infer", _RAW, raw)
    litserve = Target(f"http://127.0.0.1:{ports[1]}/infer", _JSON, json.dumps({"x": text}).encode())
    return {
        "mlserver": _mlserver(interpreter, model, text, folder, ports[2:]),
        "fastapi": _alone("fastapi_alone", interpreter, model, folder, fastapi, ports[0]),
        "litserve": _alone("litserve_alone", interpreter, model, folder, litserve, ports[1]),
    }


def scores(name: str, content: bytes) -> Array:
    """The stored outputs in a server's answer."""
    if name == "mlserver":
        content = base64.b64decode(json.loads(content)["outputs"][0]["data"][0])
    elif name == "litserve":
        content = base64.b64decode(json.loads(content)["scores"])
    return np.frombuffer(content, np.int8)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def _alone(name: str, interpreter: str, model: Path, folder: Path, target: Target, port: int) -> Server:
    command = [interpreter, str(_SERVERS / f"{name}.py"), str(model), str(port)]
    return Server(command, folder, folder / f"{name}.log", target, {})


def _mlserver(interpreter: str, model: Path, text: str, folder: Path, ports: Sequence[int]) -> Server:
    """Without its pool of processes: for a model this small its hand-over would cost more than it brings."""
    home = folder / "mlserver"
    home.mkdir()
    shutil.copy(_SERVERS / "mlserver_runtime.py", home)
    shutil.copy(model, home / "model.tflite")
    settings = {
        "name": "keywords",
        "implementation": "mlserver_runtime.LiteRT",
        "parameters": {"uri": "./model.tflite"},
    }
    (home / "model-settings.json").write_text(json.dumps(settings))
    given = {"http_port": ports[0], "grpc_port": ports[1], "metrics_port": ports[2], "parallel_workers": 0}
    server = {"host": "127.0.0.1", "debug": False, "metrics_endpoint": None, **given}
    (home / "settings.json").write_text(json.dumps(server))
    tensor = {"name": "x", "shape": [1, 1], "datatype": "BYTES", "data": [text]}
    body = json.dumps({"inputs": [{**tensor, "parameters": {"content_type": "base64"}}]}).encode()
    target = Target(f"http://127.0.0.1:{ports[0]}/v2/models/keywords/infer", _JSON, body)
    command = [str(Path(interpreter).parent / "mlserver"), "start", "."]
    return Server(command, home, folder / "mlserver.log", target, {})
