"""A real agent under a service manager's eyes: ready, alive by the answers of its models, silent when it hangs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from agent.contract import children
from tests import builders
from tests.desk import Desk
from tests.fake_controller import AgentProcess, FakeBroker, FakeController, until
from tests.seccomp import no_code_from_data

ROW = {"x": np.linspace(-2, 2, builders.FEATURES, dtype=np.float32).reshape(1, -1)}
WATCHDOG_S = 0.9
"""A window is a third of it."""


class Manager:
    """The manager's end of NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(0.05)
        micros = str(int(WATCHDOG_S * 1e6))
        self.environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": micros}
        self.heard: list[str] = []

    def listen(self, seconds: float) -> list[str]:
        """What comes within this time."""
        fresh: list[str] = []
        until_ = time.monotonic() + seconds
        while time.monotonic() < until_:
            try:
                fresh.append(self._socket.recv(4096).decode())
            except TimeoutError:
                continue
        self.heard += fresh
        return fresh

    def hears(self, what: str) -> None:
        until(lambda: what in self.listen(0.1), f"the manager hears {what}")

    def falls_silent(self) -> None:
        """What was on its way is over after a window; a manager that hears nothing for its whole time acts."""
        self.listen(WATCHDOG_S / 2)
        assert "WATCHDOG=1" not in self.listen(WATCHDOG_S * 1.5)

    def told(self, line: str) -> bool:
        return line in self.heard

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


def test_the_manager_hears_ready_then_life_while_models_answer_and_the_end(
    controller: FakeController, manager: Manager, tmp_path: Path
) -> None:
    agent = AgentProcess(tmp_path, controller, "edge-life")
    try:
        agent.start(**manager.environment)
        manager.hears("READY=1")
        manager.hears("WATCHDOG=1")  # No model yet: it is fit to take one.
        controller.serve(agent.name, builders.classifier(1))
        manager.listen(0.2)
        manager.hears("WATCHDOG=1")  # Idle: it was run once to prove that it answers.
        until(
            lambda: bool(manager.listen(0.1)) and manager.told("STATUS=connected; digits 1 serving"), "the status line"
        )
        agent.stop()
        manager.hears("STOPPING=1")
    finally:
        agent.__exit__(None, None, None)
    again = AgentProcess(tmp_path, controller, "edge-life")
    try:
        manager.heard.clear()
        began = time.monotonic()
        again.start(**manager.environment)
        manager.hears("READY=1")
        assert again.workers(), "ready means that what is stored serves"
        assert time.monotonic() - began < 8.0
    finally:
        again.__exit__(None, None, None)


def test_while_a_device_waits_for_approval_its_manager_is_told_to_wait_at_every_question(
    manager: Manager, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("good\n")
    config = tmp_path / "agent.toml"
    with Desk() as desk:
        desk.approved = False
        known = f'controller = "{desk.url}"\ntoken_file = "{tmp_path}/token"\nname = "edge-waits"\n'
        config.write_text(f"{known}[limits]\napproval_first = 0.3\napproval_most = 0.3\nhttp = 2.0\n")
        command = [*children.command("agent.cli"), "run", "--data", str(tmp_path / "data"), "--config", str(config)]
        with subprocess.Popen(command, env=children.environment(manager.environment)) as agent:
            try:
                manager.hears("STATUS=waiting for approval; on the controller: lepta device approve edge-waits")
                for _ in range(2):
                    manager.hears("EXTEND_TIMEOUT_USEC=8300000")
                assert not manager.told("READY=1")
                desk.approved = True
                manager.hears("READY=1")
            finally:
                agent.terminate()


def test_a_worker_that_hangs_silences_the_agent_until_it_answers_again(
    controller: FakeController, manager: Manager, tmp_path: Path
) -> None:
    with _Watched(tmp_path, controller, "edge-hang", manager) as agent:
        controller.serve(agent.name, builders.classifier(1))
        manager.hears("WATCHDOG=1")
        (worker,) = agent.workers()
        worker.send_signal(signal.SIGSTOP)
        manager.falls_silent()
        worker.send_signal(signal.SIGCONT)
        manager.hears("WATCHDOG=1")


def test_a_worker_that_hangs_inside_a_request_silences_the_agent_too(
    controller: FakeController, manager: Manager, tmp_path: Path
) -> None:
    hangs, config = "worker.invoke=delay:60000", "[limits]\nwatch_s = 0.15\ndrain = 0.3\n"
    with _Watched(tmp_path, controller, "edge-invoke", manager, config=config, faults=hangs) as agent:
        wanted = controller.serve(agent.name, builders.classifier(1))
        manager.hears("WATCHDOG=1")
        controller.ask(agent.name, wanted, ROW)
        manager.falls_silent()


def test_a_supervisor_that_hangs_says_nothing_though_its_worker_would_answer(
    controller: FakeController, manager: Manager, tmp_path: Path
) -> None:
    with _Watched(tmp_path, controller, "edge-stuck", manager) as agent:
        controller.serve(agent.name, builders.classifier(1))
        manager.hears("WATCHDOG=1")
        agent.process.send_signal(signal.SIGSTOP)
        try:
            manager.falls_silent()
        finally:
            agent.process.send_signal(signal.SIGCONT)
        manager.hears("WATCHDOG=1")


def test_an_idle_worker_that_answers_nothing_is_replaced_by_the_agent_itself(
    controller: FakeController, manager: Manager, tmp_path: Path
) -> None:
    config = "[limits]\nwatch_s = 0.15\ncompute = 0.5\n"
    with _Watched(tmp_path, controller, "edge-replace", manager, config=config) as agent:
        controller.serve(agent.name, builders.classifier(1))
        (worker,) = agent.workers()
        worker.send_signal(signal.SIGSTOP)
        psutil.wait_procs([worker], timeout=8.0)
        assert not worker.is_running()
        until(lambda: len(agent.workers()) == 1, "a new worker")
        manager.listen(0.3)
        manager.hears("WATCHDOG=1")


def test_status_follows_the_agent_and_its_file_is_written_only_on_a_change(
    controller: FakeController, tmp_path: Path
) -> None:
    agent = AgentProcess(tmp_path, controller, "edge-status")
    assert _cli("status", agent)[0] == 3
    with agent:
        controller.serve(agent.name, builders.classifier(1))
        until(lambda: "digits 1 serving" in _cli("status", agent)[1], "status names the model")
        status, told = _cli("status", agent)
        assert status == 0
        assert "edge-status" in told
        file = agent.folder / "status.json"
        assert file.stat().st_mode & 0o777 == 0o600
        time.sleep(2.5)  # What was still to be written is.
        written = file.stat().st_mtime_ns
        controller.infer(agent.name, controller.release(builders.classifier(1)), ROW)
        time.sleep(2.5)
        assert file.stat().st_mtime_ns == written, "requests change no state"
        status, told = _cli("wipe", agent, "--yes")
        assert status == 3
        assert "runs" in told
        status, told = _cli("doctor", agent)
        assert "is connected" in told
        assert controller.broker.password not in told
    assert _cli("status", agent)[0] == 3
    assert not file.exists()
    told = _cli("doctor", agent)[1]
    assert "ok       login: the broker takes edge-status" in told


def test_an_agent_without_its_broker_runs_but_says_that_it_is_alone(
    controller: FakeController, broker: FakeBroker, tmp_path: Path
) -> None:
    with AgentProcess(tmp_path, controller, "edge-alone") as agent:
        until(lambda: _cli("status", agent)[0] == 0, "connected")
        broker.stop()
        try:
            until(lambda: _cli("status", agent)[0] == 1, "alone")
        finally:
            broker.start()


def test_a_model_is_loaded_and_serves_where_memory_is_never_both_written_and_run(
    controller: FakeController, tmp_path: Path
) -> None:
    """What MemoryDenyWriteExecute= forbids by its system call filter, forbidden here by the same filter."""
    with _Confined(tmp_path, controller, "edge-confined") as agent:
        wanted = controller.serve(agent.name, builders.classifier(1))
        assert controller.infer(agent.name, wanted, ROW).fault is None
        (worker,) = agent.workers()
        assert "Seccomp:\t2" in Path(f"/proc/{worker.pid}/status").read_text()


class _Watched(AgentProcess):
    def __init__(
        self,
        folder: Path,
        controller: FakeController,
        name: str,
        manager: Manager,
        *,
        config: str = "",
        faults: str = "",
    ) -> None:
        super().__init__(folder, controller, name, config)
        self._more = (faults, manager.environment)

    def __enter__(self) -> AgentProcess:
        faults, environment = self._more
        return self.start(faults, **environment)


class _Confined(AgentProcess):
    def start(self, faults: str = "", **environment: str) -> AgentProcess:
        arguments = ["run", "--data", str(self.folder), "--config", str(self._config)]
        command = [*children.command("agent.cli"), *arguments]
        code = f"import os; from tests.seccomp import install; install(); os.execv({command[0]!r}, {command!r})"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code], stderr=log, cwd=Path(__file__).parents[2], env=children.environment()
            )
        return self


def _cli(verb: str, agent: AgentProcess, *more: str) -> tuple[int, str]:
    command = [*children.command("agent.cli"), verb, "--user", "--data", str(agent.folder), *more]
    environment = children.environment({"HOME": str(agent.folder.parent)})
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30, env=environment)
    return done.returncode, done.stdout + done.stderr


def test_the_filter_of_these_tests_bites() -> None:
    code = "import mmap; from tests.seccomp import install; install(); mmap.mmap(-1, 4096, prot=7)"
    run = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, cwd=Path(__file__).parents[2])
    assert b"PermissionError" in run.stderr
    assert os.name == "posix"
    assert no_code_from_data()
