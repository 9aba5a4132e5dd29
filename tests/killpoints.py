"""A real agent is killed (SIGKILL) at every fault point of an update, at every pass, and again while it recovers.

python -m tests.killpoints [--passes N]      all of them, at most N passes of each point; prints the counts
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from agent.contract import root
from agent.contract.manifest import Shadow, Watch
from agent.contract.messages import Answer, DesiredModel, Hello, Reported
from agent.contract.signing import PrivateKey
from agent.disk import RealDisk
from agent.pointers import PointerFile
from agent.roots import Roots
from tests import builders, disk_images, faultpoints
from tests.fake_controller import AgentProcess, FakeBroker, FakeController, until

_FEATURES, _ROWS = 96, 512
ROW = {"x": np.linspace(-2, 2, _FEATURES, dtype=np.float32).reshape(1, -1)}
OLD, NEW = 1, 2
Update = Literal["good", "bad", "worse"]
_WRONG: tuple[Update, ...] = ("bad", "worse")
START_S = 5.0
"""Within this time of its start the agent answers again."""
_PATIENCE_S = 20.0
_CONFIG = "[limits]\nwatch_s = 0.05\nretry_first = 0.2\nload_idle = 5\nsecure_mb = 0\nchunk_silence = 0.3\n"


@dataclass
class Tally:
    """`kill_points`: kills, in an update or in a recovery. `slowest_s`: from a start to the first answer."""

    kill_points: int = 0
    unusable: list[str] = field(default_factory=list)
    points: set[str] = field(default_factory=set)
    slowest_s: float = 0.0


class Victim:
    """One agent with version 1; every `kill` begins from there."""

    def __init__(self, folder: Path, controller: FakeController) -> None:
        self._controller = controller
        self._agent = AgentProcess(folder, controller, f"edge-{secrets.token_hex(3)}", _CONFIG)
        self.old = controller.release(_classifier(OLD))
        # With the update comes another release key, which signed it, and a floor that shuts the old version out.
        self._fresh, self._root = _rotated(controller)
        content = _classifier(NEW)
        # Golden sets of several chunks, so that one is made durable on the way.
        golden = builders.golden_for(content, rows=_ROWS)
        self.new = controller.release(content, version=NEW, golden=golden, key=self._fresh)
        # Faithfully converted and badly trained: refused on the device, and version 1 has to serve on.
        sets = (builders.golden_for(_classifier(NEW + 1, wrong=True))[0], builders.golden_for(content)[1])
        wrong = _classifier(NEW + 1, wrong=True)
        self.bad = controller.release(wrong, version=NEW + 1, golden=sets, key=self._fresh)
        # It passes its probe and its shadow phase; under watch it is slower than it may be, and goes back.
        self.worse = self._worse(content)
        self._agent.start()
        controller.desire(self._agent.name, self.old)
        controller.state(self.old, "serving")
        if self._agent.stop() != 0:
            raise RuntimeError("the agent does not stop as it was told")
        self._image = disk_images.read(self._agent.folder)
        self._update: Update = "good"
        self.tally = Tally()

    def kill(self, point: str, on_pass: int = 1, again: str = "", *, update: Update = "good") -> bool:
        """Kill it there, at `again` in the recovery, and let it recover. False if it never came by so often.

        `update`: to a version that stays, to a `bad` one, which must be refused, or to a `worse` one, which must be
        rolled back.
        """
        where = f"{point}@{on_pass}{', again ' + again if again else ''}, {update} version"
        try:
            return self._kill(point, on_pass, again, update)
        except AssertionError as error:
            self.tally.unusable.append(f"killed at {where}: {error}")
            return False

    def _kill(self, point: str, on_pass: int, again: str, update: Update) -> bool:
        self._restore()
        self._update = update
        floor = {self._target.model: NEW}
        self._controller.desire(self._agent.name, self._target, roots=(self._root,), minimum_sequence=floor)
        if not self._dies(f"{point}=kill@{on_pass}"):
            return False
        self._count(point)
        if again and self._dies(f"{again}=kill"):
            self._count(again)
        began = time.monotonic()
        self._start()
        try:
            self._recover(began)
        finally:
            self._agent.stop()
        return True

    def close(self) -> None:
        self._agent.__exit__(None, None, None)

    def _count(self, point: str) -> None:
        self.tally.kill_points += 1
        self.tally.points.add(point)

    def _restore(self) -> None:
        shutil.rmtree(self._agent.folder)
        disk_images.lay_out(self._image, self._agent.folder)

    def _start(self, faults: str = "") -> None:
        self._controller.forget()
        self._agent.start(faults=faults)

    def _dies(self, faults: str) -> bool:
        """Was it killed before the update had ended for good?"""
        self._start(faults)
        try:
            until(lambda: not self._agent.running or self._over(), "a kill or the end of the update", _PATIENCE_S)
            time.sleep(0.1)  # What follows the report.
        finally:
            status = self._agent.stop()
        return status == -signal.SIGKILL

    @property
    def _target(self) -> DesiredModel:
        return {"good": self.new, "bad": self.bad, "worse": self.worse}[self._update]

    @property
    def _end(self) -> str:
        return {"good": "serving", "bad": "refused", "worse": "failed"}[self._update]

    def _worse(self, content: bytes) -> DesiredModel:
        fresh = _classifier(NEW + 2)
        golden = (builders.golden_for(fresh)[0], builders.golden_for(content)[1])
        described = builders.manifest_for(
            fresh, golden, version=NEW + 2, sequence=NEW + 2, watch=Watch(answers=3, seconds=_PATIENCE_S, p95_ms=1e-6)
        )
        described = msgspec.structs.replace(described, shadow=Shadow(requests=2, seconds=_PATIENCE_S))
        return self._controller.release(fresh, golden=golden, manifest_=described, key=self._fresh)

    def _over(self) -> bool:
        """Has the update ended? A version under watch is asked, or its watch would not end."""
        if self._update == "worse":
            self._controller.ask(self._agent.name, self.new, ROW)
            time.sleep(0.02)
        return self._ended()

    def _ended(self) -> bool:
        reported = self._controller.heard(Reported)
        return any(
            state.manifest == self._target.manifest and state.state == self._end and report.swap is None
            for report in reported
            for state in report.models
        )

    def _recover(self, began: float) -> None:
        self._controller.wait(Hello, lambda hello: hello.agent == self._agent.name, "hello")
        first = self._answer(began)
        took = time.monotonic() - began
        self.tally.slowest_s = max(self.tally.slowest_s, took)
        allowed = {OLD, NEW} if self._update != "worse" else {OLD, self.worse.version}
        assert first.version in allowed, f"version {first.version} answers"
        assert took < START_S, f"{took:.1f} s from the start to the first answer"
        until(self._over, f"the update ends as {self._end}")
        ends = NEW if self._update == "good" else OLD
        assert self._answer(time.monotonic()).version == ends, "the wrong version answers after the update"
        trusted = Roots(self._agent.folder, RealDisk(), self._controller.release_key.public.pem()).version
        floors = PointerFile(self._agent.folder, RealDisk()).load().minimum_sequence
        assert (trusted, floors) == (1, {self._target.model: NEW}), "the root document or the floor is forgotten"

    def _answer(self, began: float) -> Answer:
        """The first answer without a fault."""
        while True:
            answer = self._controller.infer(self._agent.name, self.new, ROW)
            if answer.fault is None:
                return answer
            assert time.monotonic() < began + 2 * START_S, f"no answer: {answer.fault.message}"
            time.sleep(0.02)


def _rotated(controller: FakeController) -> tuple[PrivateKey, str]:
    """Another release key, and the root document that says so."""
    fresh = PrivateKey.generate()
    following = root.Root(version=1, root_key=controller.release_key.public.pem(), release_keys=(fresh.public.pem(),))
    return fresh, root.seal_root(following, [controller.release_key]).decode()


def _classifier(variant: int, *, wrong: bool = False) -> bytes:
    weights = np.random.default_rng(7).normal(size=(builders.CLASSES, _FEATURES))
    weights += np.random.default_rng(variant).normal(scale=0.003, size=weights.shape)
    return builders.dense(np.roll(weights, 1, axis=0) if wrong else weights, np.zeros(builders.CLASSES))


def everything(folder: Path, passes: int = 1000, points: list[str] | None = None) -> Tally:
    """Every pass of every point; each point's first is followed by a kill at each step of the recovery in turn."""
    broker = FakeBroker(folder)
    controller = FakeController(broker.broker)
    victim = Victim(folder, controller)
    points = points or faultpoints.of_an_update()
    try:
        for number, point in enumerate(points):
            on_pass = 1
            while on_pass <= passes and victim.kill(point, on_pass):
                on_pass += 1
            victim.kill(point, again=points[(number * 5 + 3) % len(points)])
            victim.kill(point, again=point)
            for update in _WRONG:
                victim.kill(point, again=point, update=update)
    finally:
        victim.close()
        controller.close()
        broker.stop()
    return victim.tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passes", type=int, default=1000, help="of each point, at most")
    parser.add_argument("--points", nargs="*", help="only these")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally = everything(Path(folder), options.passes, options.points)
    print(f"kill_points {tally.kill_points}, unusable {len(tally.unusable)}, slowest start {tally.slowest_s:.2f} s")
    never = set(options.points or faultpoints.of_an_update()) - tally.points
    print(f"never passed: {', '.join(sorted(never)) or 'none'}", *tally.unusable, sep="\n")
    return 1 if tally.unusable else 0


if __name__ == "__main__":
    sys.exit(main())
