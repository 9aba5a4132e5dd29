"""The budget of one request, hop by hop: processor time of each process on its way, and how long it is where.

The same request and load generator as `peers`, so that the sums are those of its rows `gateway`.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import NamedTuple

from controller import replies
from tests.benchmarks import measure
from tests.benchmarks.core.invoke import hops_of
from tests.benchmarks.fleet import Fleet
from tests.benchmarks.inference import peers, wrk
from tests.benchmarks.inference.wrk import Target
from tests.benchmarks.results import Figure
from tests.builders import dscnn

MODEL, DEVICE = "keywords", "pi"
CALLERS = (1, 4, 16)
ROUNDS, SECONDS, QUICK_SECONDS = 3, 4.0, 1.0
_TRACES = 100


class _Spent(NamedTuple):
    """Of one request: microseconds of processor by process, milliseconds until the caller has its answer."""

    us: dict[str, float]
    p50_ms: float


def figures(folder: Path, quick: bool) -> list[Figure]:
    content = dscnn()
    with Fleet(folder / "fleet", peers.AS_STARTED) as fleet:
        agent = fleet.add_agent(DEVICE)
        fleet.roll_out(MODEL, fleet.push(MODEL, content))
        target, _ = peers.ours(fleet, content, "")
        pids = {hop: pids for hop, pids in hops_of(fleet, agent.process.pid).items() if hop != "client"}
        wrk.load(target, max(CALLERS), 1, folder)
        found: list[Figure] = []
        for callers in CALLERS:
            spent = _spent(pids, target, callers, quick, folder)
            found += _budget(callers, spent)
            if callers == 1:
                found += _stations(fleet, content, spent)
    return found


def _spent(pids: dict[str, list[int]], target: Target, callers: int, quick: bool, folder: Path) -> _Spent:
    """Medians of some rounds."""
    turns: dict[str, list[float]] = {hop: [] for hop in pids}
    p50s = []
    for _ in range(1 if quick else ROUNDS):
        before = {hop: measure.cpu_s(each) for hop, each in pids.items()}
        load = wrk.load(target, callers, QUICK_SECONDS if quick else SECONDS, folder)
        if load.failed:
            raise RuntimeError(f"{load.failed} of {load.requests} requests of {callers} callers failed")
        for hop, each in pids.items():
            turns[hop].append((measure.cpu_s(each) - before[hop]) / load.requests * 1e6)
        p50s.append(load.p50)
    return _Spent({hop: statistics.median(turn) for hop, turn in turns.items()}, statistics.median(p50s))


def _budget(callers: int, spent: _Spent) -> list[Figure]:
    whole = sum(spent.us.values())
    return [
        Figure(f"hops_c{callers}_us", whole, "us", note=f"of processor a request, {callers} callers"),
        *(Figure(f"hop_{hop}_c{callers}_us", us, "us", note=f"{us / whole:.0%}") for hop, us in spent.us.items()),
    ]


def _stations(fleet: Fleet, content: bytes, spent: _Spent) -> list[Figure]:
    """How long a request alone is where, by the traces that the controller kept."""
    row = {"x": peers.real_row(content)}
    asked = [fleet.client.infer(MODEL, row).id for _ in range(_TRACES)]
    time.sleep(1)  # They are written in batches.
    traces = [fleet.client.request(each) for each in asked]
    took = {step: statistics.median(_ms(trace, step) for trace in traces) for step, _ in _TOLD}
    inside = sum(took.values())
    return [
        *(Figure(f"station_{key}_ms", took[step], "ms", note=f"step `{step}` of its trace") for step, key in _TOLD),
        Figure("station_http_ms", max(0.0, spent.p50_ms - inside), "ms", note="the rest, to the caller and back"),
        Figure("station_whole_ms", spent.p50_ms, "ms", note="as the caller sees it, p50"),
    ]


_TOLD = (("user request", "read"), ("optimized?", "routed"), ("distribute", "way"), ("compute", "computed"),
         ("result?", "checked"), ("response", "written"))  # fmt: skip


def _ms(trace: replies.Request, step: str) -> float:
    return sum(each.ms for each in trace.steps if each.step == step)
