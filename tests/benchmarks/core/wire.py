"""What the wire costs: the round trip of a request over MQTT, and the memory that a delivery to many agents takes."""

from __future__ import annotations

import time
from pathlib import Path

from agent.contract import topics
from agent.runtime import load
from controller.client.oip import json_request
from tests.benchmarks import measure
from tests.benchmarks.caller import Caller
from tests.benchmarks.fleet import Fleet
from tests.benchmarks.measure import Peak
from tests.benchmarks.models import heavy
from tests.benchmarks.results import Figure, at_most
from tests.builders import RUNTIMES, dscnn, random_inputs

MODEL = "keywords"
AGENTS, QUICK_AGENTS = 20, 3
ROUND_TRIPS, QUICK_ROUND_TRIPS = 1000, 100
LAYERS = 9
"""Of the model that is delivered: 5 MB, with golden sets of a few kB."""


def figures(folder: Path, quick: bool) -> list[Figure]:
    with Fleet(folder / "one") as fleet:
        found = _round_trip(fleet, QUICK_ROUND_TRIPS if quick else ROUND_TRIPS)
    with Fleet(folder / "many") as fleet:
        return found + _fan_out(fleet, QUICK_AGENTS if quick else AGENTS)


def _round_trip(fleet: Fleet, count: int) -> list[Figure]:
    fleet.add_agent("pi")
    fleet.roll_out(MODEL, fleet.push(MODEL, dscnn()))
    inputs = random_inputs(load(dscnn(), runtimes=RUNTIMES), 1)
    with Caller(fleet.client.broker(), "bench") as caller:
        bodies = [json_request(inputs, client="bench", id=f"q{number}") for number in range(count + 50)]
        taken = [caller.ask(topics.model_infer(MODEL), body) for body in bodies][50:]
    note = f"DS-CNN, JSON, embedded broker, {count} one after the other"
    return [
        at_most("mqtt_roundtrip_p50_ms", measure.percentile(taken, 0.5) * 1000, 5, "ms", note),
        Figure("mqtt_roundtrip_p99_ms", measure.percentile(taken, 0.99) * 1000, "ms"),
    ]


def _fan_out(fleet: Fleet, count: int) -> list[Figure]:
    content = heavy(LAYERS)
    for number in range(count):
        fleet.add_agent(f"pi-{number}")
    version = fleet.push("large", content)
    time.sleep(2)  # hellos and uploads have left no work behind
    pids = fleet.controller.pids
    with Peak(lambda: measure.pss_mb(pids)) as peak:
        began = time.monotonic()
        fleet.roll_out("large", version)
        taken = time.monotonic() - began
    note = f"{len(content) / 1e6:.1f} MB to {count} agents, controller and broker, peak over before"
    return [
        at_most("fanout_memory_mb", peak.growth, 20, "MB", note),
        Figure("fanout_s", taken, "s", note="until all of them serve"),
    ]
