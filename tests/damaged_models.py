"""Damaged .tflite files for workers to survive, drawn from a seed: cut, bytes flipped, overwritten, grown, shuffled.

    python -m tests.damaged_models --count 400

prints `damaged_models`, how they ended, and `agent_deaths`: how often the process that starts workers was lost.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from agent import frames
from agent.loop import Loop
from agent.runtime import installed, load
from agent.workers import Event, Exited, Worker, ZygoteWorkers
from tests import broken_models, builders

PATIENCE_S = 20.0


def damaged(count: int, seed: int = 0) -> Iterator[tuple[bytes, bytes]]:
    """(sound file, the same damaged), the same ones for the same seed."""
    draw = random.Random(seed)
    sound = [builders.classifier(1), builders.slow(2), builders.two_inputs(), broken_models.hangs(), builders.dscnn()]
    seen = set(sound)
    for number in range(count):
        content = broken = sound[number % len(sound)]
        while broken in seen:
            broken = _damage(content, draw)
        seen.add(broken)
        yield content, broken


def _damage(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    kind = draw.randrange(5)
    if kind == 0:
        return content[: draw.randrange(1, len(content))]
    if kind == 1:
        for _ in range(draw.choice((1, 2, 8, 64))):
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    elif kind == 2:  # Offsets and table sizes stand mostly at both ends.
        for _ in range(draw.choice((1, 4, 16))):
            changed[draw.choice((draw.randrange(min(400, len(changed))), -draw.randrange(1, 400)))] = draw.choice(
                (0, 255)
            )
    elif kind == 3:
        at = draw.randrange(len(changed))
        changed[at : at + draw.randrange(1, 64)] = draw.randbytes(draw.randrange(1, 64))
    else:
        at, size = draw.randrange(len(changed)), draw.randrange(1, 200)
        changed[at : at + size], changed[:size] = changed[:size], changed[at : at + size]
    return bytes(changed)


class Outcome(msgspec.Struct, frozen=True):
    """`endings`: how many workers refused their file, were ended by it, or took it. `agent_deaths`: by what happened
    to the process that starts the workers, or to this one."""

    damaged_models: int
    agent_deaths: int
    endings: dict[str, int]


def survive(folder: Path, count: int, seed: int = 0, at_once: int = 4) -> Outcome:
    """Load every damaged file in a candidate worker of its own, and probe it like any candidate."""
    bench = _Bench(folder)
    endings: Counter[str] = Counter()
    try:
        first = bench.mother()
        waiting = list(enumerate(damaged(count, seed)))
        while waiting:
            group, waiting = waiting[:at_once], waiting[at_once:]
            endings.update(bench.try_out(group))
        alive = bench.mother() == first
    finally:
        bench.close()
    return Outcome(count, 0 if alive else 1, dict(endings))


class _Bench:
    """Real workers, forked as an agent forks them."""

    def __init__(self, folder: Path) -> None:
        self._loop = Loop()
        self._workers = ZygoteWorkers(self._loop)
        self._folder = folder
        self._probes: dict[bytes, frames.Probe] = {}

    def mother(self) -> int:
        """The fork parent's process id; a sound worker proves that it can fork."""
        heard: list[Event] = []
        content = builders.classifier(1)
        worker = self._workers.spawn(self._start(content, content), lambda _, event: heard.append(event))
        self._turn(lambda: bool(heard))
        if not isinstance(heard[0], frames.Ready):
            raise RuntimeError(f"a sound model does not load any more: {heard[0]}")
        worker.drain()
        self._turn(lambda: isinstance(heard[-1], Exited))
        process = self._workers._process
        assert process is not None
        return process.pid

    def try_out(self, group: list[tuple[int, tuple[bytes, bytes]]]) -> list[str]:
        """How each of the group ended."""
        heard: dict[int, list[Event]] = {number: [] for number, _ in group}
        workers: list[Worker] = []
        paths = []
        for number, (sound, broken) in group:
            start = self._start(sound, broken)
            paths.append(Path(start.path))
            workers.append(self._workers.spawn(start, lambda _, event, n=number: heard[n].append(event)))  # type: ignore[misc]
            workers[-1].probe(self._probe_of(sound))
            workers[-1].drain()
        if not self._turn(lambda: all(_over(events) for events in heard.values()), quietly=True):
            for worker in workers:
                worker.kill()  # As the supervisor does with one that takes too long.
            self._turn(lambda: all(_over(events) for events in heard.values()))
        for path in set(paths):
            path.unlink()
        return [_ending(events) for events in heard.values()]

    def close(self) -> None:
        self._workers.close()
        self._loop.close()

    def _start(self, sound: bytes, content: bytes) -> frames.Start:
        model = load(sound, runtimes=installed())
        path, digest = self._blob(content)
        return frames.Start(
            model="digits", path=path, digest=digest, runtimes=installed(), threads=1, inputs=model.inputs,
            outputs=model.outputs, operators=model.operators,
        )  # fmt: skip

    def _probe_of(self, sound: bytes) -> frames.Probe:
        """The golden sets of the sound file."""
        if sound not in self._probes:
            (parity, parity_digest), (acceptance, digest) = map(self._blob, builders.golden_for(sound, rows=4))
            self._probes[sound] = frames.Probe(
                parity=parity, parity_digest=parity_digest, acceptance=acceptance, acceptance_digest=digest
            )
        return self._probes[sound]

    def _blob(self, content: bytes) -> tuple[str, str]:
        digest = builders.file_ref(content).digest
        path = self._folder / digest
        path.write_bytes(content)
        return str(path), digest

    def _turn(self, holds: object, *, quietly: bool = False) -> bool:
        assert callable(holds)
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            if time.monotonic() > deadline:
                if quietly:
                    return False
                raise RuntimeError("workers say nothing any more")
            self._loop.run_once(0.1)
        return True


def _over(events: list[Event]) -> bool:
    return bool(events) and isinstance(events[-1], Exited)


def _ending(events: list[Event]) -> str:
    if any(isinstance(event, frames.Failed) for event in events):
        return "refused"
    if any(isinstance(event, frames.Probed) for event in events):
        return "ran"
    (exited,) = (event for event in events if isinstance(event, Exited))
    return exited.reason or "exited"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(msgspec.to_builtins(survive(Path(folder), options.count, options.seed)), indent=2))


if __name__ == "__main__":
    main()
