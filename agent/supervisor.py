"""One agent: its link, its slots and its timers on one loop. It performs what the pure parts decide."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from functools import cached_property

import msgspec

from agent import VERSION, frames, replies, session
from agent.answers import Answers
from agent.bindings import Bindings
from agent.blobs import Blobs
from agent.chunks import ChunkError, unpacked
from agent.clock import Clock
from agent.commands import Commands
from agent.contract import topics
from agent.contract.messages import (
    DESIRED_TYPE,
    AgentStatus,
    Answer,
    Chunk,
    ControllerStatus,
    Desired,
    Hello,
    Infer,
    Message,
    MessageError,
    ModelState,
    Reported,
    SeenWindow,
    Stamper,
    SwapRecord,
    Work,
    decode,
    decode_as,
)  # fmt: skip
from agent.contract.signing import PublicKey, SignatureError, open_sealed
from agent.disk import Disk
from agent.enroll import Identity
from agent.fetch import Fetcher
from agent.fetching import sources_of
from agent.ground import Ground
from agent.intake import Intake
from agent.keeper import Keeper
from agent.lines import Ask, Waiting, shard_key
from agent.link import Connection
from agent.load import Sampler
from agent.loop import Loop, Timer
from agent.pointers import Pointers
from agent.serving import Member, Serving
from agent.settings import AgentSettings
from agent.slot import Slot
from agent.standing import Standing
from agent.workers import Workers
from firmware_profiles.profile import Facts

_log = logging.getLogger("lepta.agent")


class Supervisor:
    """Several can share one loop. `start`, then run the loop; `stop`, then run it until `stopped`.

    `new_id` makes boot and session ids; `random_` gives jitter in [0, 1).
    """

    on_change: Callable[[], None] = staticmethod(lambda: None)
    """Called when the connection or a model's state may have changed."""

    def __init__(
        self,
        loop: Loop,
        link: Connection,
        workers: Workers,
        blobs: Blobs,
        keeper: Keeper,
        identity: Identity,
        settings: AgentSettings,
        facts: Facts,
        *,
        new_id: Callable[[], str],
        random_: Callable[[], float] = random.random,
        sampler: Sampler | None = None,
        clock: Clock | None = None,
        disk: Disk | None = None,
    ) -> None:
        self._loop, self._link, self._workers, self._blobs = loop, link, workers, blobs
        self._keeper, self._identity = keeper, identity
        self._limits, self._facts = settings.limits, facts
        self._new_id, self._random = new_id, random_
        self._sampler = sampler or Sampler()
        self._standing = Standing(identity, facts, keeper, settings, clock, disk)
        self._stamper, self._seen = Stamper(new_id()), SeenWindow()
        self._state = session.Session(
            agent=identity.agent, generation=keeper.current.generation, remember=settings.limits.finished
        )
        sources = sources_of(loop, link, identity, settings, self._stamper, lambda: self._fetcher, facts, keeper)
        self._fetcher = Fetcher(loop, blobs, sources, settings.limits, self._pinned)
        self._ground = self._shared_by_slots(settings)
        self._slots: dict[str, Slot] = {}
        self.servings: dict[str, Serving] = {}  # Who serves each model.
        self._intake = Intake(self._ground, self._slots.get, self.answered)
        self._bindings = Bindings(self._ground, link, self._stamper, identity.agent, self._intake, self._slots.get)
        self._commands = Commands(identity, settings.limits, lambda: self._controller_key, self._slots.get, self._reply)
        self._topic = {kind: topics.agent(identity.agent, kind) for kind in (*topics.AGENT_UP, *topics.AGENT_DOWN)}
        self._answers = Answers(loop, link, self._topic["answer"], self._stamper)
        self._handlers = self._handlers_by_topic()
        self._hello: Timer | None = None
        self._load: Timer | None = None
        self._reporting = self._stopping = self.stopped = False
        self.refused = 0  # Payloads dropped since the start.

    # -- life

    def start(self) -> None:
        """Serve what is on disk, and connect."""
        for model in self._keeper.current.models:
            self._slot_for(model).start()
        self._link.will(self._topic["status"], self._stamper.encode(AgentStatus(online=False)))
        for topic in (*self._handlers, topics.agent_blob(self._identity.agent, "+", "+")):
            self._link.subscribe(topic, 0 if topic.endswith("/infer") else 1)
        self._link.start(self)
        self._apply(self._keeper.current)
        self._send_load()

    def stop(self) -> None:
        """Finish what workers hold, say goodbye, end every child; `stopped` tells when."""
        if self._stopping:
            return
        self._stopping = True
        for timer in (self._hello, self._load):
            if timer is not None:
                timer.cancel()
        self._fetcher.stop()
        for slot in self._slots.values():
            slot.stop()
        self._wait_idle(self._loop.now() + self._limits.drain)

    def states(self) -> tuple[ModelState, ...]:
        """Every model here and what is on its way."""
        return tuple(state for slot in self._slots.values() for state in slot.states())

    @property
    def connected(self) -> bool:
        return self._link.connected

    def _wait_idle(self, deadline: float) -> None:
        idle = not self._keeper.busy and all(slot.idle for slot in self._slots.values())
        if not idle and self._loop.now() < deadline:
            self._loop.call_later(0.01, lambda: self._wait_idle(deadline))
            return
        self._publish("status", AgentStatus(online=False, session=self._state.session), qos=1, retain=True)
        self._link.stop()
        self._workers.close()
        self.stopped = True

    # -- the link (link.Listener)

    def link_up(self) -> None:
        _log.info("connected as %s", self._identity.agent)
        self.on_change()
        self._publish("status", AgentStatus(online=True, session=self._state.session), qos=1, retain=True)
        self._decide(session.Connected(self._new_id()))
        self._fetcher.link_up()

    def link_down(self, reason: str) -> None:
        _log.warning("disconnected (%s); what is loaded keeps serving", reason)
        self.on_change()
        self._decide(session.Disconnected())
        self._bindings.link_down()
        self._fetcher.link_down()

    def link_received(self, topic: str, payload: bytes) -> None:
        """Every payload comes through here; one that is wrong is counted and dropped."""
        handler = self._handlers.get(topic)
        try:
            if handler is not None:
                handler(payload)
            elif not self._bindings.take(topic, payload):
                self._on_other(topic, payload)
        except (MessageError, SignatureError, ChunkError, topics.TopicError) as error:
            self._refuse(str(error))

    def link_subscribed(self, topic: str, refused: str) -> None:
        if self._bindings.subscribed(topic, refused):
            self.report(None)

    def _on_controller(self, payload: bytes) -> None:
        status = decode_as(ControllerStatus, "controller/status", payload)
        spread = self._limits.hello_spread
        self._decide(session.ControllerSeen(status.boot, status.seq, status.online, self._random() * spread))

    def _on_desired(self, payload: bytes) -> None:
        desired = decode_as(Desired, "agents/desired", open_sealed(payload, DESIRED_TYPE, [self._controller_key]))
        try:
            followed = self._standing.follow(desired, self._refuse)
        except OSError as error:  # Not accepted: it may name what only the new keys vouch for.
            _log.error("the root document cannot be saved: %s; check this device's disk", error)
            self._hello_after(self._limits.retry_first)
            return
        if followed:
            self._hello_after(0.0)  # The controller may hold more root documents than fit into one message.
            self._apply(self._keeper.current)  # What no key vouched for may be good now.
        self._decide(session.DesiredArrived(desired))

    def _on_infer(self, payload: bytes) -> None:
        message = decode_as(Infer, "agents/infer", payload)
        if not self._seen.is_new(message):
            self._refuse("a repeated request")
            return
        for one in message.each():
            self.ask(one, one.ttl_ms / 1000)

    def _on_work(self, payload: bytes) -> None:
        self._decide(session.Leased(decode_as(Work, "agents/work", payload)))

    def _on_cmd(self, payload: bytes) -> None:
        self._commands.execute(payload, self._state.session)

    def _on_other(self, topic: str, payload: bytes) -> None:
        parsed = topics.parse(topic)
        if parsed is None or parsed.kind not in ("blobs", "agents/blobs"):
            raise MessageError(f"nothing is expected on {topic[:100]!r}")
        digest, number = parsed.names[-2:]
        chunk = decode(parsed.kind, payload)
        assert isinstance(chunk, Chunk)
        self._fetcher.chunk(digest, int(number), chunk.size, unpacked(chunk, int(number)))

    # -- what the session decides

    def _decide(self, event: session.Event) -> list[session.Action]:
        self._state, actions = session.step(self._state, event, self._loop.now())
        for action in actions:
            match action:
                case session.SayHello(after):
                    self._hello_after(after)
                case session.Apply(desired):
                    self._save_desired(desired)
                case session.Report():
                    self.report(None)
                case session.Refuse(reason):
                    self._refuse(reason)
                case session.Queue(_, work, expires):
                    self._intake.take(Waiting(work, self._loop.now(), expires))
                case session.Forget(key):
                    for slot in self._slots.values():
                        slot.serving.drop_shard(key)
        return actions

    def _hello_after(self, after: float) -> None:
        """The earliest wish counts."""
        due = self._loop.now() + after
        if self._hello is not None:
            if self._hello.callback is not None and self._hello.when <= due:
                return
            self._hello.cancel()
        self._hello = self._loop.call_later(after, self._say_hello)

    def _say_hello(self) -> None:
        self._hello = None
        hello = Hello(
            agent=self._identity.agent,
            session=self._state.session,
            generation=self._state.generation,
            facts=self._facts,
            held=tuple(self._blobs.held()[:400]),
            models=self.states(),
            agent_version=VERSION,
            root=self._standing.roots.version,
            packings=self._standing.packings, stored=self._workers.stored, together=self._answers.most,
        )  # fmt: skip
        self._publish("hello", hello, qos=1)

    def _save_desired(self, desired: Desired) -> None:
        self._keeper.save(lambda pointers: pointers.accepting(desired), self._desired_saved)

    def _desired_saved(self, error: Exception | None) -> None:
        if error is not None:
            # Not accepted: the controller sees the old generation in the next hello and sends it again.
            _log.error("the desired state cannot be saved: %s; check this device's disk", error)
            self._state = msgspec.structs.replace(self._state, generation=self._keeper.current.generation)
            self._hello_after(self._limits.retry_first)
            return
        self._apply(self._keeper.current)

    def _apply(self, pointers: Pointers) -> None:
        if self._stopping:
            return
        wanted = {desired.model: desired for desired in pointers.desired}
        for model, slot in list(self._slots.items()):
            if model not in wanted and pointers.generation:
                slot.leave()
                del self._slots[model], self.servings[model]
        for model, desired in wanted.items():
            self._slot_for(model).want(desired)
        self._bindings.apply(pointers.bindings)
        self.report(None)

    # -- requests and shards

    def ask(self, question: Ask | Infer, within: float) -> None:
        """Have a request answered; after `within` seconds nobody wants the answer any more."""
        self._intake.take(Waiting(question, now := self._loop.now(), now + within))

    def take_shard(self, key: session.LeaseKey) -> bool:
        """Is the lease still good? (serving.Observer)"""
        actions = self._decide(session.Taken(key))
        return not any(isinstance(action, session.Forget) for action in actions)

    def answered(self, item: Waiting, computed: frames.Computed, member: Member | None) -> None:
        """Publish an answer or result. (serving.Observer)"""
        self._intake.computed(computed)
        if replies.told_here(item, computed, member):
            return
        message = replies.reply(item, computed, member, self._loop.now())
        if item.is_shard:
            self._decide(session.Finished(shard_key(item)))
        if isinstance(message, Answer):
            self._answers.add(message, alone=not item.together)
        else:
            self._link.publish(self._topic["result"], replies.encode(message, self._stamper), qos=1, kept=True)

    # -- telling

    def report(self, record: SwapRecord | None) -> None:
        """Where the models stand; several wishes of one turn make one message."""
        if record is not None:
            self._publish("reported", self._reported(record), qos=1, kept=True)
        elif not self._reporting and not self._stopping:
            self._reporting = True
            self._loop.call_soon(self._report_now)

    def _report_now(self) -> None:
        self._reporting = False
        self.on_change()
        self._publish("reported", self._reported(None), qos=1)

    def _reported(self, record: SwapRecord | None) -> Reported:
        generation, bindings = self._keeper.current.generation, self._bindings.states()
        return Reported(generation=generation, models=self.states(), swap=record, bindings=bindings)

    def _reply(self, reply: Message) -> None:
        self._publish("reply", reply, qos=1, kept=True)

    def _send_load(self) -> None:
        now = self._loop.now()
        queue = sum(len(slot.serving) for slot in self._slots.values())
        serving = [(slot, slot.serving.member) for slot in self._slots.values()]
        models = tuple(
            slot.serving.service.sample(slot.model, member.pointer.wanted.artifact, now, slot.latencies)
            for slot, member in serving
            if member is not None
        )
        more = {"refusals": dict(self._standing.refusals), "bindings": self._bindings.states()}
        self._publish("load", self._sampler.sample(queue, models, self.refused, **more), qos=0)
        self._decide(session.Ticked())
        busy = queue or any(model.rate for model in models)
        self._load = self._loop.call_later(self._limits.load_every if busy else self._limits.load_idle, self._send_load)

    def _publish(self, kind: str, message: Message, *, qos: int, retain: bool = False, kept: bool = False) -> None:
        self._link.publish(self._topic[kind], self._stamper.encode(message), qos=qos, retain=retain, kept=kept)

    def _refuse(self, reason: str) -> None:
        self.refused += 1
        _log.log(logging.WARNING if self.refused <= 10 else logging.DEBUG, "refused: %s", reason)

    # -- parts

    def _pinned(self) -> set[str]:
        return self._keeper.current.pinned().union(*(slot.pinned() for slot in self._slots.values()))

    def _slot_for(self, model: str) -> Slot:
        if model not in self._slots:
            slot = self._slots[model] = Slot(model, self._ground, self)
            self.servings[model] = slot.serving
        return self._slots[model]

    def _shared_by_slots(self, settings: AgentSettings) -> Ground:
        return Ground(
            loop=self._loop, workers=self._workers, blobs=self._blobs, fetcher=self._fetcher,
            keeper=self._keeper, limits=settings.limits, standing=self._standing, simulate=settings.simulate,
        )  # fmt: skip

    def _handlers_by_topic(self) -> dict[str, Callable[[bytes], None]]:
        return {
            topics.CONTROLLER_STATUS: self._on_controller,
            self._topic["infer"]: self._on_infer,
            self._topic["work"]: self._on_work,
            self._topic["desired"]: self._on_desired,
            self._topic["cmd"]: self._on_cmd,
        }

    @cached_property
    def _controller_key(self) -> PublicKey:
        return PublicKey.from_pem(self._identity.controller_key)
