"""One model behind Lepta's gateway, Lepta's local endpoint, MLServer, FastAPI alone and LitServe, turn by turn.

The gateway's requests go by HTTP to the controller, by MQTT to an agent, and back; its processor time is that of
controller, broker and agent together. It is what `lepta up` starts: with mosquitto where that is installed; `embedded`
is the same with the broker that Lepta brings along. All servers have the same model, LiteRT and row. The local endpoint
gets it as the others do, as the model stores it (int8); the gateway as real numbers (float32), as its users send them:
they do not know which device's scale will be theirs.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from agent.contract.golden import Array
from agent.runtime import load
from controller.client.oip import HEADER_LENGTH, decode_answer, encode_request
from tests.benchmarks import measure
from tests.benchmarks.bare import bare_work
from tests.benchmarks.fleet import Fleet
from tests.benchmarks.inference import others, wrk
from tests.benchmarks.inference.wrk import Load, Target
from tests.benchmarks.results import Figure, at_most
from tests.builders import RUNTIMES, dscnn

MODEL, DEVICE = "keywords", "pi"
AS_STARTED = ("--broker", "auto")
CALLERS = (4, 16)
ROUNDS, SECONDS = 10, 3.0
"""Many short turns: what else the machine has to do changes within seconds, and is to meet neighbours alike."""
QUICK_SECONDS = 1.0
BARE = 4000
OUR = ("gateway", "embedded", "local")
_ORDER = ("fastapi", "litserve", "embedded", "gateway", "mlserver", "local")
"""Who is held against MLServer has its turn beside it."""
_EMBEDDED = ("--broker", "embedded")


class Turn(NamedTuple):
    load: Load
    cpu_us: float
    """Of all processes of the server, per request."""


Turns = dict[tuple[str, int], list[Turn]]
"""By server and callers."""


def figures(folder: Path, quick: bool) -> list[Figure]:
    content = dscnn()
    model = folder / "model.tflite"
    model.write_bytes(content)
    row = _row(content)
    local = others.free_ports(1)[0]
    with Fleet(folder / "fleet", AS_STARTED) as fleet, Fleet(folder / "embedded", _EMBEDDED) as other:
        fleet.agent_options[DEVICE] = ("--serve", f"127.0.0.1:{local}")
        agents = {each: each.add_agent(DEVICE) for each in (fleet, other)}
        for each in agents:
            each.roll_out(MODEL, each.push(MODEL, content))
        servers = others.start(model, row, folder)
        try:
            targets = {name: server.target for name, server in servers.items()}
            targets["gateway"], targets["local"] = ours(fleet, content, f"http://127.0.0.1:{local}")
            targets["embedded"], _ = ours(other, content, "")
            _check({name: server.answer() for name, server in servers.items()}, targets, content)
            trees = {name: server.pids for name, server in servers.items()}
            trees["gateway"] = fleet.controller.pids + agents[fleet].pids
            trees["embedded"] = other.controller.pids + agents[other].pids
            trees["local"] = agents[fleet].pids
            bare = partial(_bare_us, model, row, folder, BARE // (4 if quick else 1))
            rounds, seconds = (1, QUICK_SECONDS) if quick else (ROUNDS, SECONDS)
            turns, raw_us = _measure(targets, trees, bare, folder, rounds, seconds)
        finally:
            for server in servers.values():
                server.stop()
        there = fleet.client.info().broker
        broker = there.kind if there is not None else "unknown"
    return _evaluate(turns, raw_us, broker)


def _row(content: bytes) -> Array:
    spec = load(content, runtimes=RUNTIMES).inputs[0]
    return np.random.default_rng(0).integers(-100, 100, (1, *spec.shape)).astype(spec.dtype)


def real_row(content: bytes) -> Array:
    """The same row as real numbers."""
    row = _row(content)
    spec = load(content, runtimes=RUNTIMES).inputs[0]
    return ((row.astype(np.float32) - (spec.zero_point or 0)) * np.float32(spec.scale or 1.0)).astype(np.float32)


def ours(fleet: Fleet, content: bytes, local: str) -> tuple[Target, Target]:
    """The gateway, and the local endpoint at URL `local`."""
    key = {"Authorization": f"Bearer {fleet.client.place.token()}"}
    gateway = f"{fleet.client.place.url}/v2/models/{MODEL}/infer"
    stored = f"{local}/v2/models/{MODEL}/versions/1/infer"
    return _target(gateway, real_row(content), key), _target(stored, _row(content), {})


def _target(url: str, row: Array, headers: dict[str, str]) -> Target:
    body, length = encode_request({"x": row})
    return Target(url, {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(length)} | headers, body)


def _check(answers: dict[str, bytes], targets: dict[str, Target], content: bytes) -> None:
    """All answer the same. Raises RuntimeError where one does not: its speed would mean nothing."""
    found = {name: others.scores(name, answer) for name, answer in answers.items()}
    spec = load(content, runtimes=RUNTIMES).outputs[0]
    scale, zero = spec.scale or 1.0, spec.zero_point or 0
    for name in OUR:
        raw = others.ask(targets[name])
        size = raw.index(b"]}") + 2
        real = decode_answer(raw, str(_header(raw, size))).outputs[spec.name]
        found[name] = np.rint(real.ravel() / scale + zero).astype(np.int8)
    first = found["fastapi"]
    wrong = [name for name, scores in found.items() if not np.array_equal(scores, first)]
    if wrong:
        raise RuntimeError(f"{', '.join(wrong)} answer otherwise than FastAPI alone: {found}")


def _header(raw: bytes, least: int) -> int:
    """Length of the JSON header: the rest are the 12 scores as float32."""
    size = len(raw) - 12 * 4
    if size < least:
        raise RuntimeError(f"no binary answer: {raw[:500]!r}")
    return size


def _measure(
    targets: dict[str, Target],
    trees: dict[str, list[int]],
    bare: Callable[[], float],
    folder: Path,
    rounds: int,
    seconds: float,
) -> tuple[Turns, list[float]]:
    """Turns of all servers, those of as many callers after each other, and what `bare` gave in each round."""
    turns: Turns = {(name, callers): [] for callers in CALLERS for name in sorted(targets, key=_ORDER.index)}
    raw_us: list[float] = []
    for target in targets.values():
        wrk.load(target, max(CALLERS), 1, folder)
    for _ in range(rounds):
        for name, callers in turns:
            before = measure.cpu_s(trees[name])
            load = wrk.load(targets[name], callers, seconds, folder)
            spent = measure.cpu_s(trees[name]) - before
            if load.failed:
                raise RuntimeError(f"{name} failed {load.failed} of {load.requests} requests of {callers} callers")
            turns[name, callers].append(Turn(load, spent / load.requests * 1e6))
            if (name, callers) == ("local", min(CALLERS)):
                raw_us.append(bare())
    return turns, raw_us


def _bare_us(model: Path, row: Array, folder: Path, count: int) -> float:
    rows = folder / "rows.npy"
    np.save(rows, row)
    return bare_work(model, rows, count, processes=1).cpu_s / count * 1e6


def _evaluate(turns: Turns, raws_us: list[float], broker: str) -> list[Figure]:
    def over(name: str, other: str, callers: int, what: str) -> float:
        """Median of the ratios of neighbouring turns."""
        pairs = zip(turns[name, callers], turns[other, callers], strict=True)
        return statistics.median(_value(mine, what) / _value(its, what) for mine, its in pairs)

    p99 = max(over("gateway", "mlserver", callers, "p99") for callers in CALLERS)
    cpu = over("gateway", "mlserver", 4, "cpu_us")
    rate = over("gateway", "mlserver", 16, "rate")
    local_rate = over("local", "mlserver", 16, "rate")
    raw_us = statistics.median(raws_us)
    local_cpu = statistics.median(turn.cpu_us / raw for turn, raw in zip(turns["local", 4], raws_us, strict=True))
    names = sorted({name for name, _ in turns}, key=lambda name: (name not in OUR, name))
    return [
        at_most("gateway_cpu_over_mlserver", cpu, 1.3, note=f"4 callers; broker: {broker}"),
        Figure("gateway_rps_over_mlserver", rate, "", ">= 1.5", rate >= 1.5, "16 callers"),
        at_most("gateway_p99_over_mlserver", p99, 1.0, note="the worse of 4 and 16 callers"),
        Figure("local_rps_over_mlserver", local_rate, "", ">= 2", local_rate >= 2, "16 callers"),
        at_most("local_cpu_over_raw", local_cpu, 3.0, note=f"4 callers; bare {raw_us:,.0f} us"),
        *(f for name in names for callers in CALLERS for f in _row_of(name, callers, turns[name, callers], raw_us)),
    ]


def _value(turn: Turn, what: str) -> float:
    return turn.cpu_us if what == "cpu_us" else float(getattr(turn.load, what))


def _row_of(name: str, callers: int, turns: list[Turn], raw_us: float) -> list[Figure]:
    rate, cpu = (statistics.median(_value(turn, what) for turn in turns) for what in ("rate", "cpu_us"))
    p50, p99 = (statistics.median(getattr(turn.load, what) for turn in turns) for what in ("p50", "p99"))
    return [
        Figure(f"{name}_rps_c{callers}", rate, "/s", note=f"p50 {p50:.2f} ms"),
        Figure(f"{name}_p99_ms_c{callers}", p99, "ms"),
        Figure(f"{name}_cpu_us_c{callers}", cpu, "us", note=f"of processor a request, {cpu / raw_us:.1f}x bare"),
    ]
