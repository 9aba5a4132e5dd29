"""Jobs over a real broker, controller and agents, which are killed (SIGKILL) at random moments; the result must be the
one that a run without kills gives, bit by bit, and the history one in which every shard is counted exactly once.

    python -m tests.jobkills [--kills 200] [--seed 0]      prints the counts, and what is wrong
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import psutil

from agent.runtime import Array, load, predict
from controller import replies
from controller.errors import LeptaError
from controller.recorder import ENVIRONMENT
from tests import builders, histories
from tests.benchmarks.program import PATIENCE_S
from tests.system.world import World

AGENTS = ("one", "two", "three")
MODEL, ROWS, SHARD_ROWS, LAYERS = "slow", 360, 3, 10
VICTIMS = ("agent", "agent", "supervisor", "worker", "broker", "controller")
"""An agent with all its processes, or one of them."""
_PAUSE_S = (0.05, 0.9)
"""Between the last victim's return and the next kill."""
_DEVICE_COLUMNS = ("device", "devices", "latency_ms")
"""Columns that tell who computed a row and how fast: no two runs agree on them."""


@dataclass
class Tally:
    kills: Counter[str] = field(default_factory=Counter)
    """By victim."""
    jobs: int = 0
    moved: int = 0
    refused: int = 0
    lost: int = 0
    double: int = 0
    different: int = 0
    """Jobs whose result is not the one without kills."""
    violations: list[str] = field(default_factory=list)

    @property
    def real_kills(self) -> int:
        return self.kills.total()


class Killer:
    """A world of three agents, and jobs in it one after the other."""

    def __init__(self, world: World, history: Path, seed: int) -> None:
        self._world = world
        self._history = history
        self._chance = random.Random(seed)
        self._victims: list[str] = []
        content = builders.slow(LAYERS)
        for name in AGENTS:
            world.add_agent(name)
        world.roll_out(MODEL, world.bring(MODEL, content))
        model = load(content, runtimes=builders.RUNTIMES)
        [(name, rows)] = builders.random_inputs(model, ROWS).items()
        self._digest = world.put_array(rows, world.folder / "rows.npy")
        [self._bare] = predict(model, {name: rows}).values()
        self.tally = Tally()
        self._undisturbed = self._job(0)

    def job(self, kills: int) -> None:
        """One job, with so many kills while it runs, or fewer if it ends before."""
        result = self._job(kills)
        same = all(np.array_equal(result[name], array) for name, array in self._undisturbed.items())
        self.tally.different += not same
        if not same:
            self.tally.violations.append(f"job {self.tally.jobs}: the result differs from the one without kills")

    def check(self) -> None:
        """Look at the whole history; adds to the tally."""
        lines = map(msgspec.json.decode, self._history.read_bytes().splitlines())
        for job, history in histories.check(lines).items():
            self.tally.double += history.double
            self.tally.refused += history.refused
            self.tally.violations += [f"{job}: {each}" for each in history.violations]

    def _job(self, kills: int) -> dict[str, Array]:
        client = self._world.client
        self._world.all_serve(MODEL)  # The last kill of the job before may have taken them.
        job = client.start_job(MODEL, self._digest, shard_rows=SHARD_ROWS)
        for _ in range(kills):
            time.sleep(self._chance.uniform(*_PAUSE_S))
            if self._ask(lambda: client.job(job.id)).state != "running":
                break
            self._kill()
        ended = self._ended(job.id)
        self.tally.jobs += 1
        self.tally.moved += ended.moved
        self.tally.lost += ended.lost
        counted = sum(share.rows for share in ended.devices.values())
        if (ended.state, ended.lost, ended.quarantined, counted) != ("done", 0, 0, ROWS):
            self.tally.violations.append(f"{job.id} ended like this: {ended}")
        return self._result(job.id)

    def _ended(self, job: str) -> replies.Job:
        until = time.monotonic() + PATIENCE_S
        while (found := self._ask(lambda: self._world.client.job(job))).state == "running":
            if time.monotonic() > until:
                raise RuntimeError(f"the job does not end: {found}")
            time.sleep(0.05)
        return found

    def _result(self, job: str) -> dict[str, Array]:
        path = self._world.folder / "result.npz"
        self._world.client.job_result(job, path)
        with np.load(path) as table:
            found = {name: table[name] for name in table.files if name not in _DEVICE_COLUMNS}
        if not np.array_equal(found["output:scores"], self._bare):
            self.tally.violations.append(f"{job}: the outputs are not those of a single process")
        return found

    @staticmethod
    def _ask(question: Callable[[], replies.Job]) -> replies.Job:
        """Again, while the controller is not back yet."""
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                return question()
            except LeptaError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)

    # -- killing

    def _kill(self) -> None:
        """One victim; it is started again at once, as a service manager would."""
        if not self._victims:
            self._victims = self._chance.sample(VICTIMS, len(VICTIMS))
        victim = self._victims.pop()
        name = self._chance.choice(AGENTS)
        agent, controller = self._world.agents[name].process, self._world.controller.process
        until = time.monotonic() + PATIENCE_S
        while not (pids := self._processes(victim, name)):
            # A kill just before may have taken it, and it is not back yet.
            if time.monotonic() > until:
                raise RuntimeError(f"there is no {victim} to kill")
            time.sleep(0.01)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self.tally.kills[victim] += 1
        if victim in ("agent", "supervisor"):
            agent.wait()
            self._world.start_agent(name)
        elif victim == "controller":
            controller.wait()
            self._world.restart_controller()

    def _processes(self, victim: str, name: str) -> list[int]:
        agent, controller = self._world.agents[name], self._world.controller.process.pid
        match victim:
            case "agent":
                return agent.pids
            case "supervisor":
                return [agent.process.pid]
            case "worker":
                return _workers(agent.process.pid)[-1:]
            case "broker":
                return [p.pid for p in psutil.Process(controller).children() if "embedded" in " ".join(p.cmdline())]
            case _:
                return [controller]


def _workers(pid: int) -> list[int]:
    """Processes below the agent's fork parent."""
    return [p.pid for child in psutil.Process(pid).children() for p in child.children()]


@contextmanager
def recorded(history: Path) -> Iterator[None]:
    """Controllers that are started meanwhile write their history there."""
    os.environ[ENVIRONMENT] = str(history)
    try:
        yield
    finally:
        del os.environ[ENVIRONMENT]


def everything(folder: Path, kills: int, seed: int) -> Tally:
    """Jobs until so many processes were killed in them."""
    history = folder / "history.jsonl"
    with recorded(history), World(folder / "world") as world:
        killer = Killer(world, history, seed)
        chance = random.Random(f"kills {seed}")
        while killer.tally.real_kills < kills:
            killer.job(min(chance.randint(2, 4), kills - killer.tally.real_kills))
        killer.check()
    return killer.tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lepta-kills-") as folder:
        tally = everything(Path(folder), options.kills, options.seed)
    print(tally, *tally.violations, sep="\n")
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
