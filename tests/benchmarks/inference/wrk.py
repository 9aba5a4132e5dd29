"""Load by `wrk` (Debian's package of that name): callers that ask again as soon as they have their answer."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

_SCRIPT = """
local file = io.open("{body}", "rb")
wrk.method, wrk.body = "POST", file:read("*a")
file:close()
{headers}
done = function(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.timeout + errors.status
  io.write(string.format('\\n{{"requests": %d, "seconds": %f, "failed": %d, "p50": %f, "p99": %f}}\\n',
    summary.requests, summary.duration / 1e6, failed, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


class WrkError(RuntimeError):
    """No wrk, or it did not measure."""


class Target(NamedTuple):
    """A request to repeat."""

    url: str
    headers: dict[str, str]
    body: bytes


class Load(NamedTuple):
    requests: int
    seconds: float
    failed: int
    """No answer, or another status than 2xx and 3xx."""
    p50: float
    p99: float
    """Milliseconds."""

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


def load(target: Target, callers: int, seconds: float, folder: Path) -> Load:
    """Ask by `callers` connections at once. Raises WrkError."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise WrkError("the load generator wrk is needed: apt-get install wrk")
    body, script = folder / "body", folder / "load.lua"
    body.write_bytes(target.body)
    headers = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in target.headers.items())
    script.write_text(_SCRIPT.format(body=body, headers=headers))
    length = ["-t1", f"-c{callers}", f"-d{seconds:.0f}s", "--timeout", "10s"]
    ended = subprocess.run(
        [wrk, *length, "-s", str(script), target.url], capture_output=True, text=True, timeout=seconds + 60, check=False
    )
    lines = [line for line in ended.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise WrkError(f"wrk said {ended.stdout[-500:]} {ended.stderr[-500:]}")
    told = json.loads(lines[-1])
    if not told["requests"]:
        raise WrkError(f"{target.url} answered nothing in {seconds:.0f} s")
    return Load(**told)
