"""5 MB to fifty agents at once: what controller and broker hold for it, and what a cut in the middle costs one agent.

The fifty are simulated (`controller.simulate`), in one process, and only their computing is: they enrol, fetch, store,
verify and swap as any. The one is a real agent that comes through a `Cutter`.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import msgspec

from agent import enroll, facts
from agent.contract.messages import CHUNK_BYTES
from agent.join import Invitation, join
from agent.settings import Limits
from tests.benchmarks import measure
from tests.benchmarks.fleet import Fleet
from tests.benchmarks.measure import Peak
from tests.benchmarks.models import heavy
from tests.benchmarks.program import Program
from tests.benchmarks.results import Figure, at_most
from tests.benchmarks.swap.cutter import Cutter
from tests.builders import file_ref

AGENTS, QUICK_AGENTS = 50, 5
LAYERS = 9
"""Of the model: 5 MB."""
CUT = "cut"
QUIET_S = 2.0
"""After which hellos and uploads have left no work behind."""


def figures(folder: Path, quick: bool) -> list[Figure]:
    broker = "mosquitto" if shutil.which("mosquitto") else "embedded"
    content = heavy(LAYERS)
    with Fleet(folder / "many", ("--broker", broker)) as fleet:
        found = _many(fleet, folder / "agents", content, QUICK_AGENTS if quick else AGENTS, broker)
    with Fleet(folder / "one", ("--broker", broker)) as fleet:
        return found + _one(fleet, content)


def _many(fleet: Fleet, folder: Path, content: bytes, count: int, broker: str) -> list[Figure]:
    agents = _simulated(fleet, folder, count)
    try:
        version = fleet.push("large", content)
        time.sleep(QUIET_S)
        parts = _Parts(fleet.controller.process.pid)
        with Peak(parts) as peak:
            began = time.monotonic()
            fleet.roll_out("large", version)
            taken = time.monotonic() - began
    finally:
        agents.stop()
    note = f"{len(content) / 1e6:.1f} MB to {count} simulated agents; {parts} ({broker})"
    return [
        at_most("fanout_memory_mb", peak.growth, 20, "MB", note),
        Figure("fanout_s", taken, "s", note="until all of them serve"),
    ]


def _one(fleet: Fleet, content: bytes) -> list[Figure]:
    """Alone: what others ask for comes to every agent that is still fetching."""
    size, chunks = len(content), -(-len(content) // CHUNK_BYTES)
    with Cutter(fleet.client.broker().port, file_ref(content).digest, chunks // 2) as cutter:
        agent = _behind(fleet, cutter.port)
        fleet.roll_out("large", fleet.push("large", content))
        # A rollout may end at the cut, with a device that is lost; the device goes on by itself.
        agent.until(lambda: fleet.serves(CUT, "large"), "the model serving after the cut")
    if cutter.cut_at is None:
        raise RuntimeError(f"the agent's connection was not cut: {len(cutter.came)} chunks came")
    again = cutter.asked_again()
    note = f"of {size} in {chunks} chunks; cut after {cutter.cut_at} of them and {cutter.torn} bytes of another"
    return [
        at_most("cut_extra_bytes", cutter.received - size, CHUNK_BYTES, "bytes", note),
        at_most("cut_asked_again", len(again), 0, "chunks", f"{len(set(cutter.asked))} were asked for after the cut"),
    ]


class _Parts:
    """Memory of controller and broker together, in MB (PSS), and how far each of them has grown."""

    def __init__(self, controller: int) -> None:
        self._controller = controller
        self._broker = [pid for pid in measure.tree(controller) if pid != controller]
        self._first = self._look()
        self._most = self._first

    def __call__(self) -> float:
        now = self._look()
        self._most = (max(self._most[0], now[0]), max(self._most[1], now[1]))
        return sum(now)

    def __str__(self) -> str:
        controller, broker = (most - first for most, first in zip(self._most, self._first, strict=True))
        return (
            f"controller {controller:.1f} MB over {self._first[0]:.0f}, broker {broker:.1f} over {self._first[1]:.0f}"
        )

    def _look(self) -> tuple[float, float]:
        return measure.pss_mb([self._controller]), measure.pss_mb(self._broker)


def _simulated(fleet: Fleet, folder: Path, count: int) -> Program:
    """So many simulated agents in one process, all online."""
    folder.mkdir()
    token = folder / "claim"
    token.write_text(fleet.client.claim(uses=count).token)
    arguments = ["--controller", fleet.client.place.url, "--token-file", str(token), "--folder", str(folder)]
    agents = Program("controller.simulate", [*arguments, "--agents", str(count)], fleet.folder / "agents.log")
    agents.until(lambda: sum(device.online for device in fleet.client.devices()) == count, "the agents coming online")
    return agents


def _behind(fleet: Fleet, port: int) -> Program:
    """A real agent that knows its broker by the cutter's port."""
    data = fleet.folder / CUT / "data"
    data.mkdir(parents=True)
    invitation = Invitation(fleet.client.place.url, fleet.client.claim().token, name=CUT)
    identity = join(data, invitation, facts.gather(data), Limits())
    enroll.keep(data, msgspec.structs.replace(identity, broker=msgspec.structs.replace(identity.broker, port=port)))
    (data.parent / "agent.toml").touch()
    return fleet.start_agent(CUT)
