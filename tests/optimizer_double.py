"""Speaks the optimizer's protocol without TensorFlow. The model's name says what it does with a run.

`report` makes a report and its page; `slow` and `stuck` wait to be cancelled or ended, `slow` half way; `poison` kills
the controller.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, str(Path(__file__))]


def say(**message: Any) -> None:
    print(json.dumps(message), flush=True)


def optimize(request: dict[str, Any]) -> None:
    model, told = json.loads(Path(request["run"]).read_bytes())["model"], {"id": request["id"], "event": "progress"}
    say(**told, step="prune", profile="rpi4", fraction=0.25, detail="epoch 1 of 4, 97.1 %", left_s=41.5)
    if model == "poison":
        os.kill(os.getppid(), signal.SIGKILL)
    if model in ("slow", "stuck"):
        if model == "slow":
            say(**told, step="prune", profile="rpi4", fraction=0.5, detail="epoch 2 of 4, 98.2 %", left_s=None)
        for line in sys.stdin:
            if json.loads(line)["do"] == "cancel":
                break
        say(id=request["id"], event="failed", who="user", error="cancelled")
        return
    Path(request["out"], "report.html").write_text("<!doctype html><title>a report</title>")
    rejected = [{"profile": "rpi4", "reasons": ["too slow"]}]
    say(id=request["id"], event="done", report={"model": model, "artifacts": [], "rejected": rejected})


def main() -> None:
    while line := sys.stdin.readline():
        request = json.loads(line)
        if request["do"] == "optimize":
            optimize(request)


if __name__ == "__main__":
    main()
