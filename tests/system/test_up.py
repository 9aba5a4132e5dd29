"""`lepta up` as a real process: it gets ready, stops cleanly, and never leaves a child behind, however it ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import pytest

from agent.contract.children import environment
from tests.waiting import until

_LEPTA = "import sys; from controller.cli import main; sys.exit(main())"


@pytest.fixture(params=["embedded", pytest.param("mosquitto", marks=pytest.mark.debian)])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Up(NamedTuple):
    process: subprocess.Popen[str]
    data: Path

    def known(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.data / "controller.json").read_text())
        return found

    @property
    def ready(self) -> bool:
        # One that was killed leaves its address behind until the next one starts.
        with contextlib.suppress(FileNotFoundError):
            return bool(self.known()["pid"] == self.process.pid)
        return False

    def get(self, path: str) -> httpx.Response:
        token = (self.data / "api-token").read_text().strip()
        return httpx.get(self.known()["url"] + path, headers={"Authorization": f"Bearer {token}"})

    def family(self) -> list[psutil.Process]:
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]


def _start(data: Path, *options: str, broker: str = "embedded", **variables: str) -> Up:
    command = [sys.executable, "-c", _LEPTA, "up", "--data", str(data), "--port", "0", "--broker", broker, *options]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment(variables), start_new_session=True
    )
    return Up(process, data)


@contextlib.contextmanager
def _up(data: Path, *options: str, broker: str = "embedded") -> Iterator[Up]:
    """A controller that is ready; ended at the latest when the test does."""
    up = _start(data, *options, broker=broker)
    try:
        assert until(lambda: up.ready or up.process.poll() is not None)
        assert up.process.poll() is None, up.process.communicate()[1]
        yield up
    finally:
        if up.process.poll() is None:
            up.process.terminate()
        up.process.communicate(timeout=20)


def _refused(data: Path, *options: str, broker: str = "embedded") -> str:
    """What a controller that cannot start says; it must leave no process and no address."""
    up = _start(data, *options, broker=broker)
    _, said = up.process.communicate(timeout=30)
    assert up.process.returncode == 1, said
    assert "Traceback" not in said
    assert not any(_in_session(up.process.pid))
    return said


def _in_session(leader: int) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):
            if os.getsid(process.pid) == leader:
                yield process


def test_it_gets_ready_with_private_files_and_without_tensorflow(tmp_path: Path, kind: str) -> None:
    with _up(tmp_path / "data", broker=kind) as up:
        assert up.get("/healthz").status_code == 200
        assert up.get("/readyz").json()["ready"]
        assert up.known()["pid"] == up.process.pid
        assert up.known()["broker"]["kind"] == kind
        assert stat.S_IMODE(up.data.stat().st_mode) == 0o700
        for path in up.data.rglob("*"):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        for process in up.family():
            assert "tensorflow" not in Path(f"/proc/{process.pid}/maps").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_with_code_0_and_no_child_is_left(tmp_path: Path, kind: str, number: signal.Signals) -> None:
    with _up(tmp_path, broker=kind) as up:
        family = up.family()
        assert len(family) == 2
        up.process.send_signal(number)
        assert up.process.wait(timeout=20) == 0
        assert psutil.wait_procs(family, timeout=5)[1] == []
        assert not (tmp_path / "controller.json").exists()


def test_ctrl_c_that_reaches_the_whole_group_stops_it_cleanly(tmp_path: Path, kind: str) -> None:
    with _up(tmp_path, broker=kind) as up:
        family = up.family()
        os.killpg(up.process.pid, signal.SIGINT)
        _, said = up.process.communicate(timeout=20)
        assert up.process.returncode == 0
        assert "starting it again" not in said
        assert psutil.wait_procs(family, timeout=5)[1] == []


@pytest.mark.parametrize("pause", [0.9, 1.2, 1.5, 1.8, 2.1])
def test_a_signal_during_the_start_leaves_nothing(tmp_path: Path, pause: float) -> None:
    up = _start(tmp_path)
    time.sleep(pause)
    family = up.family()
    up.process.send_signal(signal.SIGTERM)
    _, said = up.process.communicate(timeout=20)
    assert "Traceback" not in said
    assert psutil.wait_procs(family, timeout=5)[1] == []
    assert not (tmp_path / "controller.json").exists()


def test_a_kill_leaves_no_child_and_the_next_start_works(tmp_path: Path, kind: str) -> None:
    with _up(tmp_path, broker=kind) as up:
        family = up.family()
        token, port = (tmp_path / "api-token").read_text(), up.known()["broker"]["port"]
        up.process.kill()
        assert psutil.wait_procs(family, timeout=5)[1] == []
    with _up(tmp_path, broker=kind) as again:
        assert again.get("/api/v1/info").status_code == 200
        assert ((tmp_path / "api-token").read_text(), again.known()["broker"]["port"]) == (token, port)


def test_it_survives_the_death_of_its_broker(tmp_path: Path, kind: str) -> None:
    with _up(tmp_path, broker=kind) as up:
        up.family()[1].kill()
        assert until(lambda: up.get("/readyz").status_code == 503)
        assert until(lambda: up.get("/readyz").status_code == 200)
        assert up.get("/healthz").status_code == 200


def test_two_controllers_cannot_share_a_data_folder(tmp_path: Path) -> None:
    with _up(tmp_path) as up:
        said = _refused(tmp_path)
        assert f"another controller (process {up.process.pid}) uses the data folder" in said
        assert "--data" in said
        assert up.get("/readyz").status_code == 200


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = _refused(tmp_path, "--port", str(port))
    assert f"port {port} on 127.0.0.1 is in use" in said
    assert "--port" in said


def test_an_address_that_is_not_ours_is_named(tmp_path: Path) -> None:
    assert "cannot listen on 192.0.2.1" in _refused(tmp_path, "--host", "192.0.2.1", "--insecure")


@pytest.mark.parametrize("host", ["192.0.2.1", "0.0.0.0", "::"])
def test_other_machines_are_not_served_without_tls_unless_that_is_asked_for(tmp_path: Path, host: str) -> None:
    said = _refused(tmp_path, "--host", host)
    assert "without TLS" in said
    assert "lepta up --lan" in said
    assert "--insecure" in said


@pytest.mark.parametrize("options", [("--name", "fleet.test"), ("--lan", "--insecure"), ("--lan", "--name", "a b")])
def test_options_that_make_no_sense_together_are_named(tmp_path: Path, options: tuple[str, ...]) -> None:
    assert options[0 if len(options) < 3 else 1] in _refused(tmp_path, *options)


def test_an_unreachable_broker_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    said = _refused(tmp_path, broker=f"mqtt://127.0.0.1:{port}")
    assert f"the broker at 127.0.0.1:{port} cannot be reached" in said


def test_a_password_on_the_command_line_is_refused(tmp_path: Path) -> None:
    assert "LEPTA_BROKER" in _refused(tmp_path, broker="mqtt://ann:secret@127.0.0.1")


def test_a_data_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("not a folder")
    said = _refused(tmp_path / "data")
    assert f"the data folder {tmp_path / 'data'} cannot be used" in said


@pytest.mark.parametrize("name", ["lepta.db", "controller.key", "api-token"])
def test_damaged_files_in_the_data_folder_are_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"\x00garbage" * 1000)
    path.chmod(0o600)
    assert name in _refused(tmp_path)


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    with _up(tmp_path):
        pass
    (tmp_path / "release.key").chmod(0o644)
    said = _refused(tmp_path)
    assert "release.key can be read by other users" in said
    assert "chmod 600" in said


def test_secrets_are_on_no_command_line_and_in_no_log(tmp_path: Path, kind: str) -> None:
    with _up(tmp_path, broker=kind) as up:
        secrets = [(tmp_path / name).read_text().strip() for name in ("api-token", "broker-password")]
        lines = [" ".join(process.cmdline()) for process in up.family()]
        up.process.terminate()
        _, said = up.process.communicate(timeout=20)
    texts = [*lines, said, *(path.read_text() for path in (tmp_path / "logs").iterdir())]
    assert not any(secret in text for secret in secrets for text in texts)
