"""Real worker processes without a broker (base install): start, prove, compute, die, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from agent import frames
from agent.contract.tensors import Tensor
from agent.loop import Loop
from agent.runtime import installed, load, predict
from agent.workers import Event, Exited, Worker, ZygoteWorkers
from tests import builders

PATIENCE_S = 15.0


class Bench:
    """A loop with real workers and everything they said."""

    def __init__(self, folder: Path) -> None:
        self.loop = Loop()
        self.workers = ZygoteWorkers(self.loop)
        self.heard: list[tuple[Worker, Event]] = []
        self._folder = folder

    def blob(self, content: bytes) -> tuple[str, str]:
        """Path and digest."""
        digest = builders.file_ref(content).digest
        path = self._folder / digest
        path.write_bytes(content)
        return str(path), digest

    def start(self, content: bytes, **changes: object) -> frames.Start:
        path, digest = self.blob(content)
        model = load(content, runtimes=installed())
        fields: dict[str, object] = {
            "model": "digits", "path": path, "digest": digest, "runtimes": installed(), "threads": 1,
            "inputs": model.inputs, "outputs": model.outputs, "operators": model.operators,
        }  # fmt: skip
        return frames.Start(**{**fields, **changes})  # type: ignore[arg-type]

    def spawn(self, start: frames.Start, behind_s: float = 0.0) -> Worker:
        return self.workers.spawn(start, lambda worker, event: self.heard.append((worker, event)), behind_s)

    def wait(self, worker: Worker, kind: type, count: int = 1) -> list[Event]:
        """Turn the loop until `worker` said so many events of `kind`."""
        deadline = time.monotonic() + PATIENCE_S
        while len(found := [e for w, e in self.heard if w is worker and isinstance(e, kind)]) < count:
            assert time.monotonic() < deadline, f"no {kind.__name__}; heard {self.heard}"
            self.loop.run_once(0.1)
        return found

    def processes(self) -> list[psutil.Process]:
        return [p for z in psutil.Process().children() for p in (z, *z.children()) if "agent.zygote" in _words(z)]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    processes = bench.processes()
    bench.workers.close()
    bench.loop.close()
    assert not psutil.wait_procs(processes, timeout=3.0)[1], "processes are left"


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _inputs(rows: int = 3) -> tuple[dict[str, np.ndarray], tuple[Tensor, ...]]:
    values = np.random.default_rng(0).uniform(-2, 2, (rows, builders.FEATURES)).astype(np.float32)
    return {"x": values}, (Tensor("x", "float32", values.shape, values.tobytes()),)


def test_a_worker_answers_exactly_what_the_interpreter_answers_in_this_process(bench: Bench) -> None:
    content = builders.classifier(1)
    worker = bench.spawn(bench.start(content))
    inputs, wire = _inputs()
    worker.compute(frames.Compute(id=7, inputs=wire))
    (computed,) = bench.wait(worker, frames.Computed)
    assert isinstance(computed, frames.Computed)
    expected = predict(load(content, runtimes=installed()), inputs)["scores"]
    assert computed.id == 7
    assert computed.rows == 3
    assert computed.outputs[0].data == expected.tobytes()


def test_what_a_worker_holds_is_answered_before_it_drains(bench: Bench) -> None:
    worker = bench.spawn(bench.start(builders.classifier(1)))
    for number in range(20):
        worker.compute(frames.Compute(id=number, inputs=_inputs()[1]))
    worker.drain()
    (exited,) = bench.wait(worker, Exited)
    assert exited == Exited("")
    assert [e.id for _, e in bench.heard if isinstance(e, frames.Computed)] == list(range(20))


def test_a_worker_that_stands_behind_becomes_ready_on_a_host_that_is_never_idle(bench: Bench) -> None:
    bench.wait(bench.spawn(bench.start(builders.classifier(1))), frames.Ready)  # The fork parent's imports are done.
    forever = [sys.executable, "-S", "-c", "while True: pass"]
    busy = [subprocess.Popen(forever) for _ in range(2 * len(psutil.Process().cpu_affinity() or [0]))]
    try:
        bench.wait(bench.spawn(bench.start(builders.classifier(2)), behind_s=0.2), frames.Ready)
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_a_probe_measures_faithfulness_accuracy_latency_and_memory(bench: Bench) -> None:
    content = builders.classifier(1)
    (parity, parity_digest), (acceptance, acceptance_digest) = map(bench.blob, builders.golden_for(content))
    worker = bench.spawn(bench.start(content))
    worker.probe(
        frames.Probe(
            parity=parity, parity_digest=parity_digest, acceptance=acceptance, acceptance_digest=acceptance_digest
        )
    )
    (probed,) = bench.wait(worker, frames.Probed)
    assert isinstance(probed, frames.Probed)
    assert (probed.result.agreement, probed.result.accuracy) == (1.0, 1.0)
    assert probed.result.latency_ms > 0
    assert probed.result.memory_mb > 1
    assert probed.result.load_ms > 0


def test_a_changed_byte_is_refused_before_the_interpreter_sees_it(bench: Bench) -> None:
    start = bench.start(builders.classifier(1))
    Path(start.path).write_bytes(builders.changed_byte(builders.classifier(1)))
    worker = bench.spawn(start)
    (failed,) = bench.wait(worker, frames.Failed)
    assert isinstance(failed, frames.Failed)
    assert failed.damaged == (start.digest,)
    assert failed.fault.who == "device"
    bench.wait(worker, Exited)


def test_a_killed_worker_is_noticed_with_its_signal_and_others_go_on(bench: Bench) -> None:
    victim, other = (bench.spawn(bench.start(builders.classifier(1))) for _ in range(2))
    bench.wait(victim, frames.Ready)
    bench.wait(other, frames.Ready)
    pids = sorted(p.pid for p in bench.processes() if p.ppid() != os.getpid())
    os.kill(pids[0], signal.SIGKILL)
    assert bench.wait(victim, Exited) == [Exited("killed by SIGKILL")]
    other.measure(frames.Measure(id=1, runs=5))
    bench.wait(other, frames.Measured)


def test_a_killed_fork_parent_takes_its_workers_along_and_the_next_worker_has_a_new_one(bench: Bench) -> None:
    worker = bench.spawn(bench.start(builders.classifier(1)))
    bench.wait(worker, frames.Ready)
    zygote = next(p for p in bench.processes() if p.ppid() == os.getpid())
    children = zygote.children()
    zygote.kill()
    bench.wait(worker, Exited)
    assert not psutil.wait_procs(children, timeout=3.0)[1]
    bench.wait(bench.spawn(bench.start(builders.classifier(1))), frames.Ready)


def test_a_further_worker_is_forked_and_not_started_from_nothing(bench: Bench) -> None:
    """The figure itself is the benchmark's; a fresh interpreter with these imports takes ten times as long."""
    start = bench.start(builders.classifier(1))
    bench.wait(bench.spawn(start), frames.Ready)
    took = []
    for _ in range(3):
        began = time.perf_counter()
        bench.wait(bench.spawn(start), frames.Ready)
        took.append(time.perf_counter() - began)
    assert min(took) < 0.15


@pytest.mark.parametrize(
    ("content", "words"),
    [(builders.nan, "finite"), (lambda: builders.truncated(builders.classifier(1)), "cannot load")],
)
def test_a_model_that_cannot_be_used_is_a_failure_and_not_a_crash(
    bench: Bench, content: Callable[[], bytes], words: str
) -> None:
    good = bench.start(builders.classifier(1))
    path, digest = bench.blob(content())
    start = frames.Start(**{**{f: getattr(good, f) for f in good.__struct_fields__}, "path": path, "digest": digest})
    (parity, parity_digest), (acceptance, acceptance_digest) = map(
        bench.blob, builders.golden_for(builders.classifier(1))
    )
    if words == "finite":
        model = load(content(), runtimes=installed())
        start = bench.start(content(), inputs=model.inputs, outputs=model.outputs)
    worker = bench.spawn(start)
    worker.probe(
        frames.Probe(
            parity=parity, parity_digest=parity_digest, acceptance=acceptance, acceptance_digest=acceptance_digest
        )
    )
    (failed,) = bench.wait(worker, frames.Failed)
    assert isinstance(failed, frames.Failed)
    assert words in failed.fault.message


def test_a_simulated_device_is_slower_by_what_was_asked_and_says_so(bench: Bench) -> None:
    worker = bench.spawn(bench.start(builders.classifier(1), extra_ms_per_row=20.0))
    worker.compute(frames.Compute(id=1, inputs=_inputs(rows=3)[1]))
    (computed,) = bench.wait(worker, frames.Computed)
    assert isinstance(computed, frames.Computed)
    assert computed.service_ms >= 60
    (ready,) = bench.wait(worker, frames.Ready)
    assert isinstance(ready, frames.Ready)
    assert "simulated" in ready.runtime
