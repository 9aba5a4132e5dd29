"""What routing needs to know of each device: the fleet's records and what is under way, put together per model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from controller.admission import Pace
from controller.devices import Devices
from controller.known import Known
from controller.routing import Candidate

# Of more devices than this, a request looks at so many by chance: two would do, the others are for those that are full.
_LOOKS = 16


class Traffic(NamedTuple):
    """What a device has to do for us."""

    requests: int
    """Sent there and not answered, for any model."""
    shards: int
    """Of jobs, leased there and not answered."""
    shard_ms: float
    """Time of one of these; 0 without."""
    pace: Pace
    """For the model asked for."""
    now: float
    """In monotonic seconds."""


class Candidates:
    """Owned by the loop. Which devices serve a model is looked up once per change of the fleet, not per request."""

    def __init__(self, devices: Devices, traffic: Callable[[str, str], Traffic]) -> None:
        """`traffic` of a device, for a model."""
        self._devices = devices
        self._traffic = traffic
        self._serving: dict[str, list[Known]] = {}
        self._version = -1

    def all(self, model: str) -> list[Candidate]:
        """Every approved device, those that cannot answer too: for the reasons."""
        return self._made(model, (known for known in self._devices.all() if known.approved))

    def some(self, model: str, sample: Callable[[list[Known], int], list[Known]]) -> list[Candidate]:
        """Devices that serve the model: all, or of many a few by `sample(devices, how many)`."""
        if self._version != self._devices.version:
            self._version = self._devices.version
            self._serving.clear()
        serving = self._serving.get(model)
        if serving is None:
            serving = [k for k in self._devices.all() if k.approved and k.serving(model)]
            self._serving[model] = serving
        return self._made(model, serving if len(serving) <= _LOOKS else sample(serving, _LOOKS))

    def _made(self, model: str, devices: Iterable[Known]) -> list[Candidate]:
        return [_candidate(known, model, self._traffic(known.name, model)) for known in devices]


def _candidate(known: Known, model: str, traffic: Traffic) -> Candidate:
    state = known.serving(model)
    load = known.load
    believed_ms = traffic.pace.believed.ms(state.artifact, traffic.now) if state else 0.0
    service_ms = believed_ms or (known.row_ms(state.artifact) if state else 0.0)
    return Candidate(
        device=known.name,
        online=known.online and not known.gone,
        artifact=state.artifact if state else None,
        outstanding=traffic.requests,
        # Shards wait behind requests on the device.
        queue=max(0, load.queue - traffic.shards) if load else 0,
        service_ms=service_ms,
        cpu=load.cpu if load else 0.0,
        draining=known.record.drain,
        away=known.away(model) if state is None else "",
        way_ms=traffic.pace.way_ms,
        shard_ms=traffic.shard_ms,
        window=traffic.pace.window(service_ms),
        held=traffic.pace.held,
        version=state.version if state else 0,
        together=known.together,
    )
