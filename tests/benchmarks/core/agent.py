"""What an agent takes: memory of its whole tree, processor time until it serves, time until a further worker serves.

This process imports neither numpy nor an interpreter, and the controller is stopped before memory is read: pages that
others map as well would count only in part.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from agent.contract import children
from tests.benchmarks import measure
from tests.benchmarks.program import Program
from tests.benchmarks.results import Figure, at_most

DEVICE, MODEL = "pi", "keywords"


def figures(folder: Path, quick: bool) -> list[Figure]:
    held = _Helper(folder, quick)
    starts = []
    for _ in range(1 if quick else 5):
        agent = Program("agent.cli", held.told["arguments"], folder / "agent.log")
        try:
            starts.append(agent.until(held.serves, "serving"))
        finally:
            agent.stop()
        time.sleep(held.told["forgotten_s"])
    agent = Program("agent.cli", held.told["arguments"], folder / "agent.log")
    try:
        agent.until(held.serves, "serving")
        held.stop_controller()
        time.sleep(3)
        memory = measure.pss_mb(agent.pids)
        processes = len(agent.pids)
        others = measure.others_mapping("libLiteRt", agent.pids)
    finally:
        agent.stop()
    cpu = statistics.median(start.cpu_s for start in starts)
    wall = statistics.median(start.wall_s for start in starts)
    shared = f"{others} others map its libraries too: too low" if others else "nobody else maps its libraries"
    workers: dict[str, float] = held.told["worker_ms"]
    return [
        at_most(
            "agent_pss_mb",
            memory,
            75,
            "MB",
            f"DS-CNN, {processes} processes; {shared}",
        ),
        at_most("agent_start_cpu_s", cpu, 1.5, "s", f"until DS-CNN serves from disk; median of {len(starts)}"),
        Figure("agent_start_s", wall, "s"),
        at_most("worker_start_ms", workers["dscnn"], 40, "ms", "fork, load, warm up, first answer; DS-CNN"),
        Figure("worker_start_ms_mobilenet", workers["mobilenet"], "ms", note="MobileNetV2 1.0, 224 x 224"),
    ]


class _Helper:
    """A process with the heavy imports: sets the fleet up, holds the controller, and goes when told."""

    def __init__(self, folder: Path, quick: bool) -> None:
        command = [
            sys.executable,
            "-m",
            "tests.benchmarks.core.agent_fleet",
            str(folder),
            *(["--quick"] if quick else []),
        ]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=children.environment({"PYTHONSAFEPATH": ""}),
        )
        assert self._process.stdout is not None
        self.told: dict[str, Any] = json.loads(self._process.stdout.readline() or "{}")
        if not self.told:
            raise RuntimeError(f"the fleet could not be set up: status {self._process.wait()}")

    def serves(self) -> bool:
        """Is the device online, does it say that it serves, and does it answer a request?"""
        device = self._ask(f"/api/v1/devices/{DEVICE}", None)
        says = device["online"] and any(m["model"] == MODEL and m["state"] == "serving" for m in device["models"])
        return bool(says) and "outputs" in self._ask(f"/v2/models/{MODEL}/infer", self.told["request"].encode())

    def _ask(self, path: str, body: bytes | None) -> dict[str, Any]:
        token = Path(self.told["token_file"]).read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.told["url"] + path, data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=40) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def stop_controller(self) -> None:
        self._process.communicate("\n", timeout=60)
