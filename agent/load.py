"""What the device does right now: a psutil sample and each model's rate and service time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psutil

from agent.contract.messages import Load, ModelLoad
from agent.latencies import Latencies

_WEIGHT = 0.2


class ServiceTime:
    """Mean milliseconds per row, exponentially weighted, and the rows per second since the last sample."""

    def __init__(self) -> None:
        self.ms = 0.0
        self._rows = 0
        self._since: float | None = None

    def add(self, rows: int, service_ms: float) -> None:
        if rows:
            per_row = service_ms / rows
            self.ms = per_row if self.ms == 0.0 else self.ms + _WEIGHT * (per_row - self.ms)
            self._rows += rows

    def sample(self, model: str, artifact: str, now: float, latencies: Latencies) -> ModelLoad:
        """The rate since the last call, and what the requests answered since then took."""
        since, self._since = self._since, now
        rate = self._rows / (now - since) if since is not None and now > since else 0.0
        self._rows = 0
        p95 = latencies.p95(since) if since is not None else None
        return ModelLoad(model=model, artifact=artifact, rate=rate, service_ms=self.ms, p95_ms=p95)


class Sampler:
    """Reads the machine. A simulated agent brings its own `cpu`."""

    def __init__(self, cpu: Callable[[], float] | None = None) -> None:
        self._cpu = cpu or _cpu_share

    def sample(self, queue: int, models: tuple[ModelLoad, ...], refused: int, **more: Any) -> Load:
        """`more`: further fields of the message."""
        return Load(
            cpu=min(1.0, max(0.0, self._cpu())),
            memory=psutil.virtual_memory().percent / 100,
            queue=queue,
            temperature=temperature(),
            models=models,
            refused=refused,
            **more,
        )


def temperature() -> float | None:
    """Degrees Celsius of the hottest sensor; None where there is none."""
    sensors: dict[str, list[Any]] = getattr(psutil, "sensors_temperatures", dict)()
    readings = [reading.current for group in sensors.values() for reading in group if reading.current is not None]
    return max(readings, default=None)


def _cpu_share() -> float:
    """Since the last call; 0 at the first."""
    return psutil.cpu_percent(interval=None) / 100
