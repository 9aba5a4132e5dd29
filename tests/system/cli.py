"""The command line, as a user calls it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from agent.contract import children


def environment(data: Path) -> dict[str, str]:
    """`data`: the controller's folder."""
    return children.environment({"LEPTA_DATA": str(data), "NO_COLOR": "1"})


def lepta(data: Path, *arguments: str, given: bytes | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*children.command("controller.cli"), *arguments],
        env=environment(data),
        input=given,
        capture_output=True,
        timeout=400,
        check=False,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
