"""`lepta top`: what it shows of a fleet, how it fits a terminal, and what it does while the controller is gone."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.contract.messages import ModelState
from controller.commands import root, top_table
from controller.replies import Device
from tests.rest_double import RestDouble, served

_LEPTA = "import sys; from controller.cli import main; sys.exit(main())"
_A, _B = "a" * 64, "b" * 64


def state(version: int, artifact: str, at: Any = "serving") -> ModelState:
    return ModelState(
        model="digits", version=version, artifact=artifact, manifest=_A, profile="x86-cpu", state=at, reason=""
    )


def device(name: str, *, rate: float = 0.0, p95: float | None = None, **more: Any) -> Device:
    load = {
        "cpu": 0.25,
        "memory": 0.5,
        "queue": 3,
        "temperature": 61.4,
        "models": [{"model": "digits", "artifact": _A, "rate": rate, "service_ms": 0.5, "p95_ms": p95}],
    }
    known: dict[str, Any] = {"online": True, "profile": "x86-cpu", "load": load, "models": (state(1, _A),), **more}
    return Device(name=name, agent_version="0.1.0", **known)


def cells(*devices: Device, order: top_table.Order = "name") -> list[tuple[str, ...]]:
    return [row.cells for group in top_table.rows(devices, order) for row in group]


# -- rows


def test_a_row_tells_load_model_rate_and_p95() -> None:
    assert cells(device("pi-1", rate=1234.4, p95=2.5)) == [
        ("pi-1", "online", "x86-cpu", "25 %", "50 %", "61 °C", "3", "digits 1", "1,234", "2.5", "0.1.0")
    ]


def test_a_version_on_its_way_stands_below_the_one_that_serves() -> None:
    first, second = cells(device("pi-1", rate=5.0, models=(state(2, _B, "probing"), state(1, _A))))
    assert first[7:9] == ("digits 1", "5.0")
    assert second == ("",) * 7 + ("digits 2 probing", "-", "-", "")


def test_a_device_that_is_away_shows_no_load_of_yesterday() -> None:
    (row,) = cells(device("pi-1", rate=9.0, p95=1.0, online=False, last_seen_s=240.0))
    assert row[1] == "offline, 4 min ago"
    assert row[3:] == ("-", "-", "-", "-", "digits 1", "-", "-", "0.1.0")


def test_devices_without_anything_have_dashes() -> None:
    (row,) = cells(Device(name="new", state="pending"))
    assert row == ("new", "pending", *["-"] * 9)


def test_sorting_is_by_name_or_puts_the_greatest_first() -> None:
    fleet = [device("b", rate=5.0, p95=9.0), device("a", rate=1.0, p95=1.0), device("c", rate=7.0, online=False)]
    assert [row[0] for row in cells(*fleet)] == ["a", "b", "c"]
    assert [row[0] for row in cells(*fleet, order="rate")] == ["b", "a", "c"]
    assert [row[0] for row in cells(*fleet, order="p95")] == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("known", "mood"),
    [
        (device("a"), "well"),
        (device("a", load={"cpu": 0.95, "memory": 0.1}), "busy"),
        (device("a", load={"cpu": 0.1, "memory": 0.1, "temperature": 85.0}), "busy"),
        (device("a", online=False), "away"),
        (device("a", models=(state(1, _A, "failed"),)), "ill"),
    ],
)
def test_trouble_is_seen_at_a_glance(known: Device, mood: str) -> None:
    assert top_table.rows([known])[0][0].mood == mood


@pytest.mark.parametrize("height", range(12))
def test_no_more_lines_than_there_is_room_for_and_what_is_left_out_is_counted(height: int) -> None:
    fleet = [device(f"pi-{n}", models=(state(1, _A), state(2, _B, "fetching"))) for n in range(4)]
    shown, left_out = top_table.fit(top_table.rows(fleet), height)
    assert len(shown) + (1 if left_out else 0) <= max(height, 1)
    assert len(shown) == 2 * (4 - left_out)
    assert left_out == 0 if height >= 8 else left_out > 0


@pytest.mark.parametrize("width", [70, 80, 100, 200])
def test_a_narrow_terminal_does_without_what_matters_least(width: int) -> None:
    header, row = top_table.lines(cells(device("pi-1", rate=1234.0, p95=2.5)), width)
    assert max(len(header), len(row)) <= width
    assert {"device", "rows/s", "p95"} <= set(header.split())
    assert "1,234     2.5" in row
    assert ("agent" in header) == (width >= 100)


def test_the_summary_counts_the_fleet() -> None:
    fleet = [
        device("a", rate=2.0),
        device("b", rate=400.5),
        device("c", online=False),
        Device(name="d", state="pending"),
    ]
    assert top_table.summary(fleet) == "4 devices, 2 online, 1 waiting for `lepta device approve`, 402 rows/s"
    assert "lepta device add" in top_table.summary([])


# -- the command


def test_on_no_terminal_it_prints_one_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with served(RestDouble(), tmp_path) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert root.run(["top"]) == 0
        assert root.run(["top", "--once", "--sort", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1 device, 1 online, 0 rows/s"
    assert lines[1].split()[:3] == ["device", "state", "profile"]
    assert lines[2].startswith("fpga-1  online, simulated  fpga-proxy")
    assert len(lines) == 6


class Seen:
    """A terminal of 100 x 12 with `lepta top` in it."""

    def __init__(self, process: subprocess.Popen[bytes], terminal: int) -> None:
        self.process = process
        self._terminal = terminal
        self._text = ""

    def shows(self, text: str, seconds: float = 20.0) -> bool:
        """Whether it comes up; what was seen before does not count again."""
        until = time.monotonic() + seconds
        while text not in self._text and time.monotonic() < until:
            if select.select([self._terminal], [], [], 0.1)[0]:
                self._text += os.read(self._terminal, 65536).decode(errors="replace")
        found = text in self._text
        self._text = self._text.partition(text)[2]
        return found

    def press(self, key: str) -> None:
        os.write(self._terminal, key.encode())

    def ends(self) -> int:
        until = time.monotonic() + 10
        while self.process.poll() is None and time.monotonic() < until:
            self.shows("\0", 0.1)  # A terminal that nobody reads would hold it back.
        return self.process.wait(0)


@contextmanager
def on_a_terminal(environment: dict[str, str]) -> Iterator[Seen]:
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 100, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", _LEPTA, "top"],
        stdin=its,
        stdout=its,
        stderr=its,
        env={**os.environ, **environment, "TERM": "xterm-256color", "LINES": "12", "COLUMNS": "100"},
        start_new_session=True,
    )
    try:
        yield Seen(process, ours)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(its)
        os.close(ours)


def test_keys_sort_and_end_it(tmp_path: Path) -> None:
    with served(RestDouble(), tmp_path) as environment, on_a_terminal(environment) as seen:
        assert seen.shows("fpga-1")
        seen.press("s")
        assert seen.shows("sorted by cpu")
        seen.press("q")
        assert seen.ends() == 0


def test_it_goes_on_while_the_controller_is_away(tmp_path: Path) -> None:
    double = RestDouble()
    with served(double, tmp_path) as environment, on_a_terminal(environment) as seen:
        assert seen.shows("fpga-1")
        double.refuse = True
        assert seen.shows("still trying")
        double.refuse = False
        assert seen.shows("sorted by name")
        seen.process.send_signal(signal.SIGINT)
        assert seen.ends() == 0
