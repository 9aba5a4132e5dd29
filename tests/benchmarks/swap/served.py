"""The servers beside which Lepta's swap is measured, each in processes of its own on a free port of this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from agent.contract import children
from controller.broker.ports import free_port

_ROOT = Path(__file__).parents[3]
_RUNTIME = Path(__file__).with_name("mlserver_runtime.py")
HOST, MODEL, FILE = "127.0.0.1", "digits", "model.tflite"
MLSERVER_VARIABLE = "LEPTA_MLSERVER"
"""An environment that has MLServer and LiteRT, instead of a new one."""
# With a later uvloop, MLServer 1.7.1 loses its worker at the start: it asks for an event loop where there is none.
_PACKAGES = ("mlserver==1.7.1", "uvloop==0.21.0", f"ai-edge-litert=={metadata.version('ai-edge-litert')}")
_PYTHON = ">=3.10,<3.13"
_INSTALL_S, _START_S, _STOP_S = 300.0, 60.0, 10.0


class NotHereError(RuntimeError):
    """MLServer cannot be had on this machine; says why."""


class Server:
    """A process that answers `/v2/models/digits/infer` and reads its model anew from `file`. A context manager."""

    def __init__(self, command: Sequence[str], port: int, folder: Path, variables: Mapping[str, str]) -> None:
        self.url = f"http://{HOST}:{port}"
        self.file = folder / MODEL / FILE
        self._log = folder / "server.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env=children.environment({"PYTHONSAFEPATH": "", **variables}),
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        until = time.monotonic() + _START_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > until:
                self.__exit__(None, None, None)
                raise RuntimeError(f"the server does not serve:\n{self._log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        try:  # MLServer leaves a process of multiprocessing behind; the session is ours alone.
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/v2/models/{MODEL}/ready") as got:
                return bool(got.status == 200)
        except OSError:  # Not there yet, or there and not ready.
            return False


class PlainServer(Server):
    """`plain_server`, by the way `inline` or `pause`."""

    def __init__(self, way: str, folder: Path, content: bytes) -> None:
        _lay_out(folder, content)
        port = free_port(HOST)
        command = [sys.executable, "-m", "tests.benchmarks.swap.plain_server", way]
        super().__init__([*command, str(folder / MODEL / FILE), str(port)], port, folder, {"PYTHONPATH": str(_ROOT)})


class MLServer(Server):
    """MLServer with its default of one inference worker, and `mlserver_runtime` as its runtime."""

    def __init__(self, environment: Path, folder: Path, content: bytes) -> None:
        _lay_out(folder, content)
        shutil.copy(_RUNTIME, folder / MODEL)
        settings = {"name": MODEL, "implementation": f"{_RUNTIME.stem}.LiteRT", "parameters": {"uri": f"./{FILE}"}}
        (folder / MODEL / "model-settings.json").write_bytes(msgspec.json.encode(settings))
        port, *others = (free_port(HOST) for _ in range(3))
        variables = {"HOST": HOST, "HTTP_PORT": port, "GRPC_PORT": others[0], "METRICS_PORT": others[1], "DEBUG": False}
        command = [str(environment / "bin" / "mlserver"), "start", str(folder)]
        super().__init__(command, port, folder, {f"MLSERVER_{name}": str(value) for name, value in variables.items()})


def mlserver_environment(folder: Path) -> Path:
    """An environment with MLServer: the one that is given, the one made in `folder` before, or a new one there.

    It shares nothing with ours, whose packages are newer than it takes. Raises NotHereError.
    """
    given = os.environ.get(MLSERVER_VARIABLE)
    place = Path(given) if given else folder
    if (place / "bin" / "mlserver").exists():
        return place
    if given:
        raise NotHereError(f"{MLSERVER_VARIABLE} names an environment without bin/mlserver")
    uv = shutil.which("uv")
    if uv is None:
        raise NotHereError("uv is not on PATH")
    folder.mkdir(parents=True, exist_ok=True)
    _run([uv, "venv", "-q", "--clear", "--python", _PYTHON, str(folder)], folder)
    _run([uv, "pip", "install", "-q", "--python", str(folder / "bin" / "python"), *_PACKAGES], folder)
    return folder


def _run(command: Sequence[str], folder: Path) -> None:
    """In `folder`, where our own constraints do not count."""
    try:
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_INSTALL_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise NotHereError(f"installing it took more than {_INSTALL_S:.0f} s") from error
    if ended.returncode != 0:
        said = " ".join(ended.stderr.split())
        raise NotHereError(f"it could not be installed: {said[:200]}")


def _lay_out(folder: Path, content: bytes) -> None:
    (folder / MODEL).mkdir(parents=True, exist_ok=True)
    (folder / MODEL / FILE).write_bytes(content)
