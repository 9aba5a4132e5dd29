"""The budget of one request, hop by hop: processor time of each process on its way, and how long it is where.

The same request and load generator as `peers`, so that the sums are those of its rows `gateway`.
"""

from __future__ import annotations

import secrets
import statistics
import time
from pathlib import Path

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
            found += _budget(callers, _spent(pids, target, callers, quick, folder))
            if callers == 1:
                found += _stations(fleet, target, quick, folder)
    return found


def _spent(pids: dict[str, list[int]], target: Target, callers: int, quick: bool, folder: Path) -> dict[str, float]:
    """Microseconds of processor of one request by process: medians of some rounds."""
    turns: dict[str, list[float]] = {hop: [] for hop in pids}
    for _ in range(1 if quick else ROUNDS):
        before = {hop: measure.cpu_s(each) for hop, each in pids.items()}
        load = wrk.load(target, callers, QUICK_SECONDS if quick else SECONDS, folder)
        if load.failed:
            raise RuntimeError(f"{load.failed} of {load.requests} requests of {callers} callers failed")
        for hop, each in pids.items():
            turns[hop].append((measure.cpu_s(each) - before[hop]) / load.requests * 1e6)
    return {hop: statistics.median(turn) for hop, turn in turns.items()}


def _budget(callers: int, spent: dict[str, float]) -> list[Figure]:
    whole = sum(spent.values())
    return [
        Figure(f"hops_c{callers}_us", whole, "us", note=f"of processor a request, {callers} callers"),
        *(Figure(f"hop_{hop}_c{callers}_us", us, "us", note=f"{us / whole:.0%}") for hop, us in spent.items()),
    ]


def _stations(fleet: Fleet, target: Target, quick: bool, folder: Path) -> list[Figure]:
    """How long a request alone is where, by the controller's traces of the last requests of one load."""
    trace_id = secrets.token_hex(16)
    traced = target._replace(headers=target.headers | {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"})
    load = wrk.load(traced, 1, QUICK_SECONDS if quick else SECONDS, folder)
    time.sleep(2)  # They are written in batches.
    traces = fleet.client.requests_of(trace_id)
    took = {step: statistics.median(_ms(trace, step) for trace in traces) for step, _ in _TOLD}
    inside = statistics.median(sum(_ms(trace, step) for step, _ in _TOLD) for trace in traces)
    return [
        *(Figure(f"station_{key}_ms", took[step], "ms", note=f"step `{step}` of its trace") for step, key in _TOLD),
        Figure("station_http_ms", load.p50 - inside, "ms", note="the rest, to the caller and back"),
        Figure("station_whole_ms", load.p50, "ms", note="as the caller sees it, p50"),
    ]


_TOLD = (("user request", "read"), ("optimized?", "routed"), ("distribute", "way"), ("compute", "computed"),
         ("result?", "checked"), ("response", "written"))  # fmt: skip


def _ms(trace: replies.Request, step: str) -> float:
    return sum(each.ms for each in trace.steps if each.step == step)
