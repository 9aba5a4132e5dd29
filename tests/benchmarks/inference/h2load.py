"""Load by `h2load` (Debian's package nghttp2-client): many callers at a rate of their own, every answer counted."""

from __future__ import annotations

import csv
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.inference.wrk import Target


class H2loadError(RuntimeError):
    """No h2load, or it did not measure."""


class Answered(NamedTuple):
    at: float
    """Seconds since the first was asked."""
    latency: float
    """Seconds."""
    status: int
    """0 without an answer."""


def load(target: Target, callers: int, seconds: float, folder: Path, rate: float | None = None) -> list[Answered]:
    """Ask by `callers` connections (HTTP/1.1), each as soon as it has its answer, or `rate` times a second all
    together. Raises H2loadError."""
    program = shutil.which("h2load")
    if program is None:
        raise H2loadError("the load generator h2load is needed: apt-get install nghttp2-client")
    body, log = folder / "h2load-body", folder / "h2load-log"
    body.write_bytes(target.body)
    log.unlink(missing_ok=True)
    headers = [f"--header={name}: {value}" for name, value in target.headers.items()]
    paced = [f"--rps={rate / callers:.3f}"] if rate is not None else []
    how = ["--h1", f"--clients={callers}", f"--duration={seconds:.0f}", *paced, f"--data={body}", f"--log-file={log}"]
    command = [program, *how, *headers, target.url]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    rows = list(csv.reader(log.read_text().splitlines(), delimiter="\t")) if log.exists() else []
    if ended.returncode != 0 or not rows:
        raise H2loadError(f"h2load said {ended.stdout[-300:]} {ended.stderr[-300:]}")
    first = min(int(row[0]) for row in rows)
    return [Answered((int(row[0]) - first) / 1e6, int(row[2]) / 1e6, max(0, int(row[1]))) for row in rows]
