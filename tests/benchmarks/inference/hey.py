"""Load by `hey` (Debian's package of that name): many callers at a rate of their own, every answer with its status."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.inference.wrk import Target


class HeyError(RuntimeError):
    """No hey, or it did not measure."""


class Answered(NamedTuple):
    at: float
    """Seconds from the start until it was asked."""
    latency: float
    """Seconds."""
    status: int


def load(target: Target, callers: int, seconds: float, folder: Path, rate: float | None = None) -> list[Answered]:
    """Ask by `callers` connections, each as soon as it has its answer, or `rate` times a second all together.
    Raises HeyError."""
    program = shutil.which("hey")
    if program is None:
        raise HeyError("the load generator hey is needed: apt-get install hey")
    body = folder / "hey-body"
    body.write_bytes(target.body)
    headers = [part for name, value in target.headers.items() for part in ("-H", f"{name}: {value}")]
    paced = ["-q", str(max(1, round(rate / callers)))] if rate is not None else []
    how = ["-z", f"{seconds:.0f}s", "-c", str(callers), *paced, "-t", "20", "-m", "POST", "-o", "csv"]
    command = [program, *how, *headers, "-T", target.headers["Content-Type"], "-D", str(body), target.url]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    rows = list(csv.DictReader(io.StringIO(ended.stdout)))
    if ended.returncode != 0 or not rows:
        raise HeyError(f"hey said {ended.stdout[-300:]} {ended.stderr[-300:]}")
    return [Answered(float(r["offset"]), float(r["response-time"]), int(r["status-code"])) for r in rows]
