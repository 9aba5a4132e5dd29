"""Simulated agents in processes of their own: everything of an agent is real but its computing, which is a sleep."""

from __future__ import annotations

from tests.benchmarks.fleet import Fleet
from tests.benchmarks.program import Program


def start(fleet: Fleet, row_ms: float, *, first: int = 0, count: int = 1) -> Program:
    """One process with `count` agents, `sim-000` and so on from number `first`; returns when all are online. The fleet
    stops it."""
    names = {f"sim-{number:03}" for number in range(first, first + count)}
    home = fleet.folder / f"simulated-{first}"
    home.mkdir(exist_ok=True)
    token = home / "claim"
    token.write_text(fleet.client.claim(uses=count).token)
    place = ["--controller", fleet.client.place.url, "--token-file", str(token), "--folder", str(home)]
    kind = ["--agents", str(count), "--first", str(first), "--row-ms", str(row_ms)]
    program = Program("controller.simulate", [*place, *kind], fleet.folder / f"simulated-{first}.log")
    fleet.agents[f"simulated-{first}"] = program
    program.until(
        lambda: names <= {device.name for device in fleet.client.devices() if device.online}, "simulated agents online"
    )
    return program
