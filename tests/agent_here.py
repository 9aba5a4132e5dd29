"""An agent in this process: real supervisor, store and state; a broker and workers that only pretend, and take no time.

The workers do what matters to a disk: they read the model's bytes, and fail where those do not match their digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from agent import frames
from agent.blobs import Blobs
from agent.contract import messages, root, topics
from agent.contract.bindings import Binding
from agent.contract.manifest import PAYLOAD_TYPE, encode
from agent.contract.messages import (
    CHUNK_BYTES,
    DESIRED_TYPE,
    Chunk,
    Desired,
    DesiredModel,
    Fault,
    Hello,
    Message,
    Need,
    ProbeResult,
    Reported,
    Stamper,
)
from agent.contract.root import Root
from agent.contract.signing import PrivateKey, seal
from agent.contract.tensors import TensorSpec
from agent.disk import Disk
from agent.enroll import Identity
from agent.keeper import Keeper
from agent.link import Broker, Listener
from agent.load import Sampler
from agent.loop import Loop
from agent.pointers import PointerFile
from agent.settings import AgentSettings, Limits
from agent.supervisor import Supervisor
from agent.workers import Exited, Worker
from agent.workers import Listener as WorkerListener
from firmware_profiles.profile import Facts
from tests import builders

NAME, MODEL, TOKEN = "edge", "digits", "device-token"
LIMITS = Limits(
    watch_s=0.005, chunk_silence=0.05, retry_first=0.005, retry_most=0.02, restart_first=0.005, secure_mb=1,
    hello_spread=0.0, drain=0.2, resubscribe=0.02,
)  # fmt: skip


class World:
    """What stays when the agent's device goes: the controller with its keys, blobs, and wishes."""

    def __init__(self) -> None:
        self.controller_key, self.release_key = PrivateKey.generate(), PrivateKey.generate()
        self.first_key = self.release_key.public.pem()
        """The release key that the device enrolled with."""
        self.roots: list[str] = []
        self._trusted = root.first(self.first_key)
        self._root_key = self.release_key
        self.floor: dict[str, int] = {}
        self.mirrors: tuple[str, ...] = ()
        self.blobs: dict[str, bytes] = {}
        self.desired = b""
        self.generation = 0
        self.wanted: tuple[DesiredModel, ...] = ()
        self.bindings: tuple[Binding, ...] = ()
        self._stamper = Stamper("controller")
        self.sent = 0
        """Bytes of chunks."""

    def release(self, version: int, chunks: int) -> DesiredModel:
        """An artifact whose model file takes this many chunks."""
        content = (f"model {version}".encode() * (chunks * CHUNK_BYTES))[: chunks * CHUNK_BYTES - 9]
        golden = (f"parity {version}".encode(), b"acceptance")
        spec = (TensorSpec(name="x", dtype="int8", shape=(4,), scale=1.0, zero_point=0),)
        described = builders.manifest_for(content, golden, model=MODEL, version=version, sequence=version, inputs=spec)
        envelope = seal(encode(described), PAYLOAD_TYPE, self.release_key)
        for file in (content, *golden, envelope):
            self.blobs[hashlib.sha256(file).hexdigest()] = file
        return DesiredModel(
            model=MODEL, version=version, artifact=described.artifact, manifest=hashlib.sha256(envelope).hexdigest(),
            profile=described.profile,
        )  # fmt: skip

    def rotate(self) -> None:
        """Another release key counts from now on, and it alone; the next desired state says so."""
        self.release_key = PrivateKey.generate()
        following = Root(
            version=self._trusted.version + 1, root_key=self._root_key.public.pem(),
            release_keys=(self.release_key.public.pem(),),
        )  # fmt: skip
        envelope = root.seal_root(following, [self._root_key])
        self._trusted = root.follow(self._trusted, envelope)
        self.roots.append(envelope.decode())

    def desire(self, *wanted: DesiredModel, bindings: tuple[Binding, ...] = ()) -> None:
        self.generation += 1
        self.wanted, self.bindings = wanted, bindings
        self.say()

    def say(self) -> None:
        """The desired state as it is, in the same generation."""
        desired = Desired(
            agent=NAME, generation=self.generation, models=self.wanted, minimum_sequence=self.floor,
            roots=tuple(self.roots), mirrors=self.mirrors, bindings=self.bindings,
        )  # fmt: skip
        self.desired = seal(self._stamper.encode(desired), DESIRED_TYPE, self.controller_key)

    def chunk(self, digest: str, number: int) -> bytes:
        content = self.blobs[digest]
        data = content[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
        self.sent += len(data)
        return self._stamper.encode(Chunk(size=len(content), data=data))


class NearBroker:
    """The port `agent.link.Connection`: always there, or (`online` False) never."""

    def __init__(self, loop: Loop, world: World, online: bool) -> None:
        self._loop = loop
        self._world = world
        self._online = online
        self._topics: set[str] = set()
        self._listener: Listener | None = None
        self.connected = False
        self.reported: list[Reported] = []
        self.refuses: set[str] = set()
        """Topics that nobody may read."""

    def will(self, topic: str, payload: bytes) -> None:
        return

    def start(self, listener: Listener) -> None:
        self._listener = listener
        if self._online:
            self._loop.call_soon(self._up)

    def subscribe(self, topic: str, qos: int = 1) -> None:
        if topic not in self.refuses:
            self._topics.add(topic)
        if self.connected:
            self._loop.call_soon(lambda: self._answer(topic))

    def unsubscribe(self, topic: str) -> None:
        self._topics.discard(topic)

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool = False, kept: bool = False) -> None:
        parsed = topics.parse(topic)
        if parsed is None or not self.connected:
            return
        self._take(messages.decode(parsed.kind, payload))

    def stop(self) -> None:
        self.connected = False

    def say_desired(self) -> None:
        """What is retained arrives."""
        if self._world.desired and self.connected and self._listener is not None:
            self._listener.link_received(topics.agent(NAME, "desired"), self._world.desired)

    def _up(self) -> None:
        self.connected = True
        assert self._listener is not None
        self._listener.link_up()
        for topic in sorted(self._topics | self.refuses):
            self._answer(topic)
        self.say_desired()

    def _answer(self, topic: str) -> None:
        assert self._listener is not None
        self._listener.link_subscribed(topic, "Not authorized" if topic in self.refuses else "")

    def _take(self, message: Message) -> None:
        if isinstance(message, Reported):
            self.reported.append(message)
        elif isinstance(message, Hello) and self._lacks(message):
            self._loop.call_soon(self.say_desired)
        elif isinstance(message, Need) and message.digest in self._world.blobs:
            last = -(-len(self._world.blobs[message.digest]) // CHUNK_BYTES) - 1
            for first, final in message.ranges:
                for number in range(first, min(final, last) + 1):
                    self._loop.call_soon(lambda number=number: self._send(message.digest, number))  # type: ignore[misc]

    def _lacks(self, hello: Hello) -> bool:
        return hello.generation < self._world.generation or hello.root < len(self._world.roots)

    def _send(self, digest: str, number: int) -> None:
        if topics.blob(digest, "+") in self._topics and self._listener is not None and self.connected:
            self._listener.link_received(topics.blob(digest, number), self._world.chunk(digest, number))


class QuickWorkers:
    """The port `agent.workers.Workers`: everything is done in the loop's next turn."""

    stored = False

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def spawn(self, start: frames.Start, listener: WorkerListener, behind_s: float = 0.0) -> Worker:
        return _QuickWorker(self._loop, start, listener)

    def close(self) -> None:
        return


class _QuickWorker:
    def __init__(self, loop: Loop, start: frames.Start, listener: WorkerListener) -> None:
        self._loop = loop
        self._listener = listener
        self._over = False
        if _damaged(start.path, start.digest):
            fault = Fault(who="device", message="the model's bytes were changed on disk")
            self._tell(frames.Failed(fault=fault, damaged=(start.digest,)))
        else:
            self._tell(frames.Ready(family="quick", runtime="quick", load_ms=0.0))

    def compute(self, order: frames.Compute) -> None:
        self._tell(frames.Computed(id=order.id))

    def promote(self) -> None:
        return

    def probe(self, order: frames.Probe) -> None:
        sets = ((order.parity, order.parity_digest), (order.acceptance, order.acceptance_digest))
        damaged = tuple(digest for path, digest in sets if _damaged(path, digest))
        if damaged:
            fault = Fault(who="device", message="a golden set was changed on disk")
            self._tell(frames.Failed(fault=fault, damaged=damaged))
        else:
            self._tell(frames.Probed(result=ProbeResult(agreement=1.0, sqnr_db=60.0, accuracy=1.0)))

    def compare(self, order: frames.Compare) -> None:
        rows = order.outputs[0].shape[0]
        self._tell(frames.Compared(rows=rows, agreed=rows))

    def measure(self, order: frames.Measure) -> None:
        self._tell(frames.Measured(id=order.id, median_ms=0.1))

    def drain(self) -> None:
        self._tell(Exited(""))

    def kill(self) -> None:
        self._tell(Exited("killed"))

    def _tell(self, event: frames.FromWorker | Exited) -> None:
        def tell() -> None:
            if not self._over:
                self._over = isinstance(event, Exited)
                self._listener(self, event)

        self._loop.call_soon(tell)


def _damaged(path: str, digest: str) -> bool:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest() != digest
    except OSError:
        return True


class AgentHere:
    """One life of the agent on `folder`. `until` runs it; `cut` takes the power."""

    def __init__(
        self,
        folder: Path,
        disk: Disk,
        world: World,
        *,
        online: bool = True,
        settings: AgentSettings | None = None,
        controller: str = "",
    ) -> None:
        """`controller`: its HTTP address, where it has one."""
        settings = settings or AgentSettings(limits=LIMITS)
        folder.mkdir(parents=True, exist_ok=True)
        PointerFile(folder, disk).load()  # Raises PointerError before anything has to be closed again.
        self._loop = Loop()
        self.broker = NearBroker(self._loop, world, online)
        numbers = itertools.count()
        self._keeper = Keeper(self._loop, PointerFile(folder, disk))
        self.supervisor = Supervisor(
            loop=self._loop,
            link=self.broker,
            workers=QuickWorkers(self._loop),
            blobs=Blobs(folder, disk, LIMITS.disk_mb << 20),
            keeper=self._keeper,
            identity=_identity(world, controller),
            settings=msgspec.structs.replace(settings, name=NAME, data=str(folder)),
            facts=Facts(machine="x86_64", system="linux", runtimes=("ai-edge-litert",)),
            new_id=lambda: f"{id(self)}-{next(numbers)}",
            sampler=Sampler(cpu=lambda: 0.0),
            disk=disk,
        )
        self.gaps = 0
        """Turns of the loop in which nobody served, after somebody did."""
        self._served = False
        self.supervisor.start()

    @property
    def serves(self) -> int:
        """The version that answers; 0 where none does."""
        serving = self.supervisor.servings.get(MODEL)
        member = serving.member if serving is not None and serving.live else None
        return member.pointer.wanted.version if member is not None else 0

    @property
    def committed(self) -> int:
        """The version that serves and is not watched any more."""
        states = self.supervisor.states()
        return next((state.version for state in states if state.state == "serving"), 0) if self.serves else 0

    def until(self, holds: Callable[[], bool], patience: float = 5.0) -> bool:
        """Run until it holds; False if it does not within `patience` seconds."""
        deadline = time.monotonic() + patience
        while not holds():
            if time.monotonic() > deadline:
                return False
            self._loop.run_once(0.01)
            self._served = self._served or bool(self.serves)
            self.gaps += self._served and not self.serves
        return True

    def cut(self) -> None:
        """Nothing is said or finished; threads that write come to their end first."""
        self.until(lambda: not self._keeper.busy, 1.0)
        self._loop.close()


def _identity(world: World, controller: str) -> Identity:
    return Identity(
        agent=NAME, broker=Broker("127.0.0.1", 1), device_token=TOKEN, controller=controller,
        controller_key=world.controller_key.public.pem(), release_key=world.first_key,
    )  # fmt: skip


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the agent's log: thousands of lives would fill it."""
    logger = logging.getLogger("lepta")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
