"""Benchmarks: figures that the README and the docs quote, each printed by a command."""

from __future__ import annotations

from typing import NamedTuple


class Benchmark(NamedTuple):
    text: str
    sections: tuple[str, ...]
    """Modules of the package of the benchmark's name, each with `figures(folder, quick)`."""


BENCHMARKS = {
    "core": Benchmark(
        "swaps under load, cost of a request, batch job, footprint and start of agent and controller, MQTT delivery",
        ("start", "agent", "invoke", "swap", "wire", "batch"),
    ),
    "devices": Benchmark("devices that join, and what each of them may do", ("matrix", "rogue", "races", "join")),
    "swap": Benchmark(
        "what a hot swap costs those who ask meanwhile, and what forged, damaged and interrupted updates can do",
        ("stream", "others", "fanout", "attacks", "damaged", "faults"),
    ),
    "inference": Benchmark(
        "the gateway and the local endpoint beside other servers; overload, a killed device and swaps under load",
        ("peers", "hops", "trouble"),
    ),
    "jobs": Benchmark(
        "jobs under kills and on uneven fleets, beside process pools and Dask, on a million rows, and drains",
        ("kills", "simulated", "uneven", "even", "speedup", "million", "refine", "rebalance", "drains"),
    ),
    "optimizer": Benchmark(
        "what pruning, distillation and int8 cost in accuracy and buy in size and speed, and what a run takes",
        ("models", "recipes", "article"),
    ),
}
