"""`lepta demo`: it keeps its promises, and it leaves nothing behind, however it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.contract import children

pytestmark = pytest.mark.slow


class Demo:
    """A demo as a child; `text` is what it has printed so far."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.out = folder / "demo.out"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        # With a mark of its own in the environment, whatever it starts can be found even when its parent is gone.
        self.mark = f"LEPTA_TEST_MARK={folder}"
        extra = {"TMPDIR": str(self.temporary), "LEPTA_TEST_MARK": str(folder), "NO_COLOR": "1"}
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [*children.command("controller.cli"), "demo", *arguments],
                env=children.environment(extra),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        return self.out.read_text(errors="replace")

    def wait_for(self, text: str, seconds: float = 120) -> None:
        self.until(lambda: text in self.text, seconds)

    def until(self, holds: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.05)

    def relatives(self) -> list[str]:
        """Command lines of every living process that the demo started, itself left out."""
        found = []
        for process in psutil.process_iter():
            try:
                marked = process.environ().get("LEPTA_TEST_MARK") == str(self.out.parent)
                if marked and process.pid != self.process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        return found

    def end(self, number: signal.Signals) -> int:
        os.kill(self.process.pid, number)
        return self.process.wait(60)


def nothing_is_left(demo: Demo) -> None:
    assert demo.relatives() == []
    assert list(demo.temporary.iterdir()) == []


def test_the_demo_keeps_its_promises_and_leaves_nothing_behind(tmp_path: Path) -> None:
    demo = Demo(tmp_path, "--report", str(tmp_path / "report.json"))
    code = demo.process.wait(600)
    assert code == 0, demo.text
    report: dict[str, Any] = json.loads((tmp_path / "report.json").read_text())
    assert report["swap"]["failed"] == 0
    assert report["swap"]["requests"] > 500
    assert report["job"]["exact"] is True
    assert report["job"]["rows"] == 1797
    assert (report["job"]["lost"], report["job"]["duplicates"]) == (0, 0)
    assert report["job"]["killed"] == "agent-2"
    assert {a["version"] for a in report["artifacts"]} == {1, 2}
    assert all(a["gate_passed"] and a["accuracy_int8"] > 0.9 for a in report["artifacts"])
    assert all(4 * a["parameters"] < 0.6 * a["bytes_before"] for a in report["artifacts"])
    assert report["refused"]["version"] == 3
    assert {d["outcome"] for d in report["refused"]["devices"]} == {"refused"}
    assert all(d["agreement"] > 0.98 and d["accuracy"] < 0.2 for d in report["refused"]["devices"])
    assert report["refused"]["answers"] == {"2": 30}
    bought = r"pruned to \d+ %, int8: [\d,]+ parameters became [\d,]+, .*x\), .* MACs became .*, accuracy [\d.]+ % -> "
    assert len(re.findall(bought, demo.text)) == 2
    assert report["simulated"] == ["fpga-1"]
    assert "BROKEN" not in demo.text
    assert "seven.png: 7 (" in demo.text
    assert "simulated" in demo.text
    assert "Traceback" not in demo.text
    nothing_is_left(demo)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_demo_that_is_stopped_takes_everything_with_it(tmp_path: Path, number: signal.Signals) -> None:
    demo = Demo(tmp_path)
    demo.wait_for("agent-2")
    assert len(demo.relatives()) >= 5
    assert demo.end(number) == 130
    assert "Traceback" not in demo.text
    nothing_is_left(demo)


def test_a_controller_that_dies_ends_the_demo_with_an_error_and_nothing_is_left(tmp_path: Path) -> None:
    demo = Demo(tmp_path)
    demo.wait_for("agent-2")
    [controller] = [p for p in psutil.Process(demo.process.pid).children() if "controller.cli" in " ".join(p.cmdline())]
    controller.kill()
    assert demo.process.wait(120) == 1
    assert "error: " in demo.text
    nothing_is_left(demo)
