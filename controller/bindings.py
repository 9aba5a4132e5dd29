"""PURE: the bindings that there are, and which device reads which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

import msgspec

from agent.contract.bindings import DEVICE, MAX_BOUND, BindingError, check, source_of
from agent.contract.messages import Binding, DesiredModel
from agent.contract.topics import TopicError
from controller import records
from controller.errors import BadRequest, Busy, Conflict, NotFound

# Of what a message takes: it is retained, and holds more than these.
_MOST_OF_ONE = MAX_BOUND // 2


class Bindings:
    """By name. Owned by the loop."""

    def __init__(self) -> None:
        self._all: dict[str, records.Binding] = {}

    def restore(self, bindings: Iterable[records.Binding]) -> None:
        self._all = {binding.name: binding for binding in bindings}

    def every(self) -> list[records.Binding]:
        return sorted(self._all.values(), key=lambda binding: binding.name)

    def require(self, name: str) -> records.Binding:
        """Raises NotFound."""
        try:
            return self._all[name]
        except KeyError:
            raise NotFound(f"no binding is called {name!r}", "lepta binding ls") from None

    def put(self, binding: records.Binding) -> None:
        self._all[binding.name] = binding

    def drop(self, name: str) -> None:
        self._all.pop(name, None)

    def of(self, device: str, desired: Collection[DesiredModel]) -> tuple[Binding, ...]:
        """What this device is told, which is to run these models: topics with its name in them."""
        mine = [binding.spec for binding in self.every() if binding.concerns(device, desired)]
        return tuple(msgspec.structs.replace(spec, topic=spec.topic.replace(DEVICE, device)) for spec in mine)

    def admit(self, new: records.Binding, most: int) -> None:
        """Raises BadRequest for one that cannot be read or would feed itself, Conflict for a name that is taken, and
        Busy where a device would have too many."""
        try:
            check(new.spec)
        except (BindingError, TopicError) as error:
            raise BadRequest(str(error), "lepta binding add --help") from error
        if new.name in self._all:
            raise Conflict(f"a binding {new.name!r} exists", f"lepta binding rm {new.name}, or choose another name")
        if len(self._all) >= most or self._busiest(new.devices) >= _MOST_OF_ONE:
            limits = f"{most} bindings, and {_MOST_OF_ONE} of one device, are the most"
            raise Busy(limits, "remove one that is not needed: lepta binding rm NAME")
        way = self._way(source_of(new.spec.topic), new.spec.model)
        if way:
            circle = " -> ".join((*way, new.spec.model))
            raise BadRequest(f"these models would ask each other without an end: {circle}", "leave one of them out")

    def _busiest(self, devices: tuple[str, ...]) -> int:
        """How many the one of these devices has that has most; of all devices if none are named."""
        named = Counter(device for binding in self._all.values() for device in binding.devices)
        everywhere = sum(not binding.devices for binding in self._all.values())
        return everywhere + max((named[device] for device in devices or named), default=0)

    def _way(self, model: str, origin: str, passed: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Does what `model` reads come from `origin`? The models from there to it; empty if not."""
        if not model or model in passed:
            return ()
        if model == origin:
            return (model, *passed)
        sources = {source_of(b.spec.topic) for b in self._all.values() if b.spec.model == model}
        ways = (self._way(source, origin, (model, *passed)) for source in sorted(sources))
        return next((way for way in ways if way), ())
