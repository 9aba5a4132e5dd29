"""The bindings of this device: reads their topics, has their models answer, and publishes what they found."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

from agent import binding_queue, frames
from agent.binding_queue import Came, Compute, Done, Due, Left, Outcome, Queue, Wake, Wrong
from agent.binding_windows import Windows, begin_anew, cut
from agent.contract import bindings, topics
from agent.contract.bindings import SAMPLES, Binding, BindingError, BindingState
from agent.contract.messages import Prediction, Stamper
from agent.ground import Ground
from agent.intake import Intake
from agent.lines import Fed, Waiting
from agent.link import Connection
from agent.loop import Loop, Timer
from agent.serving import Member
from agent.slot import Slot

_log = logging.getLogger("lepta.agent.bindings")
_FOREVER = float("inf")


class Hands(msgspec.Struct):
    """What bindings work with."""

    loop: Loop
    link: Connection
    stamper: Stamper
    agent: str
    offer: Callable[[Waiting], None]
    slot: Callable[[str], Slot | None]
    most: int
    """Bytes of a payload."""
    again: float
    """Seconds until a topic that the broker refused is asked for again."""


class Bindings:
    """Call `apply` whenever the desired state changes; what did not change goes on."""

    def __init__(
        self,
        ground: Ground,
        link: Connection,
        stamper: Stamper,
        agent: str,
        intake: Intake,
        slot: Callable[[str], Slot | None],
    ) -> None:
        """`slot` is where a model lives here."""
        limits = ground.limits
        self._hands = Hands(
            ground.loop, link, stamper, agent, intake.take, slot, limits.bound_kb << 10, limits.resubscribe
        )
        self._bound: dict[str, _Bound] = {}
        self._refused: dict[str, BindingState] = {}
        self._again: Timer | None = None

    def apply(self, wanted: Iterable[Binding]) -> None:
        before, self._bound, self._refused = self._bound, {}, {}
        for binding in wanted:
            old = before.pop(binding.name, None)
            reason = refusal(binding)
            if reason:
                _log.warning("binding %s is refused: %s", binding.name, reason)
                refused = BindingState(name=binding.name, model=binding.model, state="refused", reason=reason)
                self._refused[binding.name] = refused
            elif old is not None and old.binding == binding:
                self._bound[binding.name] = old
                continue
            else:
                self._bound[binding.name] = _Bound(binding, self._hands)
            if old is not None:
                before[binding.name] = old
        self._subscribe({bound.binding.topic for bound in before.values()})
        for bound in before.values():
            bound.end()

    def subscribed(self, topic: str, refused: str) -> bool:
        """The broker lets us read this topic, or `refused` says why not. Is that news?"""
        news = [each for each in self._bound.values() if each.binding.topic == topic and each.unread != refused]
        for each in news:
            each.unread = refused
        if self._again is None and any(each.unread for each in self._bound.values()):
            self._again = self._hands.loop.call_later(self._hands.again, self._ask_again)
        return bool(news)

    def take(self, topic: str, payload: bytes) -> bool:
        """False if nothing is bound to this topic."""
        bound = [each for each in self._bound.values() if each.binding.topic == topic]
        for each in bound:
            each.take(payload)
        return bool(bound)

    def link_down(self) -> None:
        for bound in self._bound.values():
            bound.link_down()

    def states(self) -> tuple[BindingState, ...]:
        return (*(bound.state() for bound in self._bound.values()), *self._refused.values())

    def _ask_again(self) -> None:
        """The right to read it may have come meanwhile."""
        self._again = None
        for topic in sorted({each.binding.topic for each in self._bound.values() if each.unread}):
            self._hands.link.subscribe(topic, 0)

    def _subscribe(self, left: set[str]) -> None:
        now = {bound.binding.topic for bound in self._bound.values()}
        for topic in sorted(left - now):
            self._hands.link.unsubscribe(topic)
        for topic in sorted(now):
            self._hands.link.subscribe(topic, 0)


def refusal(binding: Binding) -> str:
    """Why this device cannot read it; empty if it can."""
    try:
        bindings.check(binding)
        if bindings.DEVICE in binding.topic:
            raise BindingError(f"its topic still has {bindings.DEVICE}: the controller is to name the device")
    except (BindingError, topics.TopicError) as error:
        return str(error)
    if binding.format == "image" and importlib.util.find_spec("PIL") is None:
        return "pictures need Pillow, which is not installed here: pip install 'lepta[image]'; then restart the agent"
    return ""


class _Bound:
    """One binding at work."""

    def __init__(self, binding: Binding, hands: Hands) -> None:
        self.binding = binding
        self._hands = hands
        self._topic = topics.predictions(binding.model, hands.agent)
        self._queue = Queue(keep=binding.keep, every=1 / binding.rate if binding.rate else 0.0)
        self._windows = _windows(binding)
        self._timer: Timer | None = None
        self._reason = ""
        """What was wrong with the last input that failed, while none came through since."""
        self.unread = ""
        """Why the broker does not let us read its topic."""
        self._over = False

    def take(self, payload: bytes) -> None:
        wrong = self._wrong(payload)
        if wrong:
            self._reason = wrong
            self._step(Wrong())
        elif self._windows is None:
            self._step(Came((payload,)))
        else:
            self._windows, whole, left_out = cut(self._windows, payload, self.binding.keep + 1)
            if whole:
                self._step(Came(whole, left_out))

    def link_down(self) -> None:
        if self._windows is not None:
            self._windows = begin_anew(self._windows)
        self._step(Left())

    def end(self) -> None:
        self._over = True
        self._stop_timer()

    def state(self) -> BindingState:
        queue = self._queue
        state, reason = self._standing()
        return BindingState(
            name=self.binding.name,
            model=self.binding.model,
            state=state,
            reason=reason,
            received=queue.received,
            predicted=queue.predicted,
            dropped=queue.dropped,
            failed=queue.failed,
        )

    def _standing(self) -> tuple[Literal["active", "waiting", "refused"], str]:
        slot = self._hands.slot(self.binding.model)
        if self.unread:
            told = f"the broker refuses the topic: {self.unread}; give this device the right to read it"
            return "refused", told
        if slot is None or not slot.serving.live:
            return "waiting", f"model {self.binding.model} does not serve here yet"
        return "active", self._reason

    def _wrong(self, payload: bytes) -> str:
        if len(payload) > self._hands.most:
            return f"an input of {len(payload)} bytes came; at most {self._hands.most} are read (bound_kb)"
        audio = self.binding.audio
        if audio is not None and len(payload) % SAMPLES[audio.sample]:
            return f"{len(payload)} bytes came, which is no whole number of {audio.sample} samples"
        return ""

    def _step(self, event: binding_queue.Event) -> None:
        if self._over:
            return
        self._queue, action = binding_queue.step(self._queue, event, self._hands.loop.now())
        match action:
            case Compute(item):
                self._stop_timer()
                message = Fed(self.binding.model, frames.Feed(item.payload, self.binding), self._answered)
                self._hands.offer(Waiting(message, item.received, _FOREVER))
            case Wake(at) if self._timer is None:
                self._timer = self._hands.loop.call_later(at - self._hands.loop.now(), self._due)

    def _due(self) -> None:
        self._timer = None
        self._step(Due())

    def _answered(self, item: Waiting, computed: frames.Computed, member: Member | None) -> None:
        if not self._over:
            # In the loop's next turn: a device that refuses everything at once must not come back here from within.
            done = Done(self._outcome(item, computed, member))
            self._hands.loop.call_soon(lambda: self._step(done))

    def _outcome(self, item: Waiting, computed: frames.Computed, member: Member | None) -> Outcome:
        if computed.fault is not None:
            self._reason = computed.fault.message
            return "failed" if computed.fault.who == "user" else "dropped"
        if computed.nonsense:
            self._reason = "the model answered something that is no number (NaN or infinity)"
            return "failed"
        assert member is not None
        self._reason = ""
        self._publish(item, computed, member)
        return "predicted"

    def _publish(self, item: Waiting, computed: frames.Computed, member: Member) -> None:
        now, wanted = self._hands.loop.now(), member.pointer.wanted
        prediction = Prediction(
            binding=self.binding.name,
            model=self.binding.model,
            artifact=wanted.artifact,
            version=wanted.version,
            runtime=member.ready.runtime if member.ready else "",
            label=computed.top[0].label if computed.top else "",
            top=computed.top,
            scores=computed.scores,
            latency_ms=round((now - item.received) * 1000, 3),
            queue_ms=round(max(0.0, item.sent - item.received) * 1000, 3),
            service_ms=round(computed.service_ms, 3),
        )
        self._hands.link.publish(self._topic, self._hands.stamper.encode(prediction), qos=0)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _windows(binding: Binding) -> Windows | None:
    if binding.audio is None:
        return None
    width = SAMPLES[binding.audio.sample]
    return Windows(window=binding.audio.window * width, hop=binding.audio.hop * width)
