"""Simulated lives of a job: messages late, twice, lost or overtaken; devices that restart, drain, hang, fail; a broker
that goes, a controller that is killed at any point of a turn and begins again from what was saved.

The rules are the real ones: `controller.work`, and `controller.job_setup.rules_of` after a restart. Everything else is
a model without a clock; the same seed gives the same life.

    python -m tests.jobs_simulated [--runs 20000] [--first 0]      prints what is wrong, by seed
"""

from __future__ import annotations

import argparse
import heapq
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import msgspec

from controller import records, work
from controller.job_setup import rules_of
from controller.shards import Shard, replicated, split
from tests import histories
from tests.job_scenes import Fault, Scene, draw

JOB = "job"
TURN_S = 0.2
_PATIENCE_S = 3600.0
_POLICY = work.Policy(lease_s=6.0, apart_s=3.0)


class Message(NamedTuple):
    """A lease on its way to a device, or what becomes of it."""

    lease: work.Lease
    boot: int
    answer: work.Answered | None = None


@dataclass
class Device:
    name: str
    row_s: float
    life: int = 0
    up: bool = True
    drained: bool = False
    free_at: float = 0.0
    seen: set[tuple[int, int]] = field(default_factory=set)


class Outcome(NamedTuple):
    state: str
    history: histories.History
    rows: dict[int, int]
    """How many answers are counted by first row of their shard."""
    wrong: list[str]
    """What must not be, the checker's findings included."""


class Life:
    """One run from start to end."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._chance = random.Random(f"life {scene.seed}")
        self._devices = {name: Device(name, row_s) for name, row_s in scene.row_s.items()}
        once = split(scene.rows, scene.shard_rows)
        self._apart = len(once) if scene.replicas > 1 else 0
        shards = replicated(once, scene.replicas)
        # What is on the disk.
        self._store = {s.number: records.Shard(job=JOB, number=s.number, first=s.first, last=s.last) for s in shards}
        self._lines: list[dict[str, Any]] = [{"event": "job", "job": JOB, "shards": len(shards)}]
        # The controller's memory.
        self._rules: work.Job | None = work.Job(shards, _POLICY, apart=self._apart)
        self._lives: dict[str, int] = {}
        self._boot = 0
        self._inbox: list[work.Answered] = []
        self._writes: list[records.Shard] = []
        self._then: list[Callable[[], None]] = []
        # The world.
        self._now = 0.0
        self._on_the_way: list[tuple[float, int, str, Message, int]] = []
        self._numbers = 0
        self._broker_back = self._resumed_at = 0.0
        self._back: list[tuple[float, Callable[[], None]]] = []
        self._ended = ""

    def run(self) -> Outcome:
        faults = list(self._scene.faults)
        while not self._ended and self._now < _PATIENCE_S:
            while faults and faults[0].at <= self._now:
                self._break(faults.pop(0))
            due = [each for at, each in self._back if at <= self._now]
            self._back = [(at, each) for at, each in self._back if at > self._now]
            for repair in due:
                repair()
            self._deliver()
            if self._rules is not None:
                self._turn()
            self._now += TURN_S
        return self._outcome()

    # -- what breaks

    def _break(self, fault: Fault) -> None:
        device = self._devices.get(fault.device)
        ends = self._now + fault.length
        match fault.kind:
            case "restart":
                assert device is not None
                device.life += 1
                device.up, device.seen = False, set()
                self._back.append((ends, lambda: self._starts(device)))
            case "drain":
                assert device is not None
                device.drained = True
                self._back.append((ends, lambda: setattr(device, "drained", False)))
            case "hang":
                assert device is not None
                device.free_at = max(device.free_at, ends)
            case "broker":
                self._broker_back = max(self._broker_back, ends)
                self._on_the_way = [each for each in self._on_the_way if each[2] == "computed"]
                heapq.heapify(self._on_the_way)
            case "controller" if self._rules is not None:
                self._turn(killed=True)
                self._rules = None
                self._back.append((ends, self._restore))
            case "pause" if self._rules is not None:
                self._resumed_at = max(self._resumed_at, ends)
                self._write("paused")
            case _:
                pass

    def _starts(self, device: Device) -> None:
        device.up, device.free_at = True, self._now

    def _restore(self) -> None:
        if self._rules is not None or self._ended:
            return
        self._boot += 1
        self._inbox, self._writes, self._then, self._lives = [], [], [], {}
        self._rules = rules_of(list(self._store.values()), _POLICY, self._apart)
        counted = [s.number for s in self._store.values() if s.state == "accepted"]
        self._write("restore", accepted=counted, quarantined=list(self._rules.quarantined))
        if self._rules.finished:
            self._end("done")

    # -- the controller

    def _turn(self, *, killed: bool = False) -> None:
        """What `controller.jobs` does in a turn; a kill comes before the commit, or between what follows it."""
        rules = self._rules
        assert rules is not None
        for answer in self._inbox:
            self._act(rules.handle(answer, self._now))
        self._inbox = []
        self._note_devices(rules)
        self._act(rules.handle(work.Ticked(), self._now))
        if self._resumed_at and self._now >= self._resumed_at:
            self._resumed_at = 0.0
            self._write("running")
        if not rules.finished and not self._resumed_at:
            self._act(rules.assign(self._now))
        if killed and self._chance.random() < 0.5:
            return
        self._store |= {each.number: each for each in self._writes}
        then = self._then[: self._chance.randint(0, len(self._then))] if killed else self._then
        self._writes, self._then = [], []
        for each in then:
            each()
        if self._now >= self._scene.cancelled_at and not self._ended and not killed:
            self._end("cancelled")

    def _note_devices(self, rules: work.Job) -> None:
        for device in self._devices.values():
            there = device.up and not device.drained and self._now >= self._broker_back
            known = self._lives.get(device.name)
            if known is not None and (not there or known != device.life):
                del self._lives[device.name]
                self._act(rules.handle(work.DeviceGone(device.name), self._now))
            elif there and known is None:
                self._lives[device.name] = device.life
                self._act(rules.handle(work.DeviceReady(device.name, 0.001), self._now))

    def _act(self, actions: Sequence[work.Action]) -> None:
        for action in actions:
            match action:
                case work.Lease(device, shard, attempt, _, speculative):
                    self._save(shard, state="leased", attempt=attempt, device=device)
                    self._note("lease", shard.number, attempt=attempt, device=device, speculative=speculative)
                    message = Message(action, self._boot)
                    self._then.append(partial(self._send, "work", message))
                case work.Accept(shard, attempt, device):
                    self._save(shard, state="accepted", attempt=attempt, device=device)
                    self._note("accept", shard.number, attempt=attempt, device=device)
                case work.Refuse(number):
                    self._note("refuse", number)
                case work.Quarantine(shard, reason):
                    self._save(shard, state="quarantined", reason=reason)
                    self._note("quarantine", shard.number, reason=reason)
                case work.Finish():
                    self._then.append(partial(self._end, "done"))

    def _save(self, shard: Shard, **changes: Any) -> None:
        self._writes.append(records.Shard(job=JOB, number=shard.number, first=shard.first, last=shard.last, **changes))

    def _note(self, event: str, number: int, **values: Any) -> None:
        self._then.append(partial(self._write, event, shard=number, **values))

    def _write(self, event: str, **values: Any) -> None:
        self._lines.append({"event": event, "job": JOB, **values})

    def _end(self, state: str) -> None:
        self._ended = state
        accepted = sum(1 for each in self._store.values() if each.state == "accepted")
        self._write("job-end", state=state, accepted=accepted)

    # -- the way, and the devices

    def _send(self, kind: str, message: Message) -> None:
        chance, scene = self._chance, self._scene
        if self._now < self._broker_back:
            return
        for _ in range(2 if chance.random() < scene.twice else 1):
            if chance.random() >= scene.lost:
                self._put(self._now + chance.uniform(0, scene.delay_s), kind, message)

    def _put(self, at: float, kind: str, message: Message) -> None:
        self._numbers += 1
        life = self._devices[message.lease.device].life
        heapq.heappush(self._on_the_way, (at, self._numbers, kind, message, life))

    def _deliver(self) -> None:
        turn, waiting = self._now, self._on_the_way
        while waiting and waiting[0][0] <= turn:
            self._now, _, kind, message, life = heapq.heappop(waiting)
            device = self._devices[message.lease.device]
            if kind == "answer":
                assert message.answer is not None
                if self._rules is not None:
                    self._inbox.append(message.answer)
            elif device.up and life == device.life:
                self._take(device, message) if kind == "work" else self._computed(message)
        self._now = turn

    def _take(self, device: Device, message: Message) -> None:
        lease = message.lease
        if (lease.shard.number, lease.attempt) in device.seen:
            return
        device.seen.add((lease.shard.number, lease.attempt))
        if device.drained:
            answer = work.Answered(device.name, lease.shard.number, lease.attempt, 0.0, "draining", turned_down=True)
            self._send("answer", message._replace(answer=answer))
            return
        begins = max(self._now, device.free_at)
        if begins >= self._now + lease.ttl_s:
            return  # The lease runs out while it waits.
        device.free_at = begins + device.row_s * lease.shard.rows
        self._put(device.free_at, "computed", message)

    def _computed(self, message: Message) -> None:
        """The device is through with it; what an earlier controller ordered, it may have dropped."""
        lease, scene = message.lease, self._scene
        if message.boot < self._boot and self._chance.random() < 0.5:
            return
        fails = lease.shard.first in scene.poison or lease.device == scene.bad
        busy_s = self._devices[lease.device].row_s * lease.shard.rows
        error = "it cannot be computed" if fails else ""
        answer = work.Answered(lease.device, lease.shard.number, lease.attempt, busy_s, error)
        self._send("answer", message._replace(answer=answer))

    # -- the end

    def _outcome(self) -> Outcome:
        history = histories.check(self._lines)[JOB]
        rows: dict[int, int] = {}
        for each in self._store.values():
            if each.state == "accepted":
                rows[each.first] = rows.get(each.first, 0) + 1
        wrong = list(history.violations)
        if not self._ended:
            wrong.append("it does not end")
        if self._ended == "done":
            wrong += self._compared(rows)
        return Outcome(self._ended, history, rows, wrong)

    def _compared(self, rows: dict[int, int]) -> list[str]:
        """With a life in which nothing goes wrong: there each shard that is not poison is counted `replicas` times."""
        wanted = dict.fromkeys(range(0, self._scene.rows, self._scene.shard_rows), self._scene.replicas)
        wanted = {first: count for first, count in wanted.items() if first not in self._scene.poison}
        differ = sorted(first for first in wanted.keys() | rows.keys() if wanted.get(first) != rows.get(first))
        reasons = {each.reason for each in self._store.values() if each.first in differ and each.reason}
        return [f"rows from {first}: {rows.get(first, 0)} answers counted ({reasons})" for first in differ]


class Tally(msgspec.Struct):
    runs: int = 0
    restarts: int = 0
    leases: int = 0
    speculative: int = 0
    refused: int = 0
    lost: int = 0
    double: int = 0
    wrong: list[str] = []


def many(runs: int, first: int = 0) -> Tally:
    """Lives `first` to `first + runs`."""
    tally = Tally()
    for seed in range(first, first + runs):
        outcome = Life(draw(seed)).run()
        history = outcome.history
        tally.runs += 1
        tally.restarts += history.restarts
        tally.leases += len(history.leases)
        tally.speculative += history.speculative
        tally.refused += history.refused
        tally.lost += history.lost if outcome.state == "done" else 0
        tally.double += history.double
        tally.wrong += [f"seed {seed}: {each}" for each in outcome.wrong]
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    options = parser.parse_args()
    tally = many(options.runs, options.first)
    print(msgspec.json.encode(msgspec.structs.replace(tally, wrong=[])).decode(), *tally.wrong[:50], sep="\n")
    print(f"{len(tally.wrong)} violations")
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
