"""A small controller for the agent's system tests: a real broker, the real contract, and every way to misbehave."""

from __future__ import annotations

import hashlib
import os
import secrets
import signal
import socket
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import msgspec
import numpy as np
import paho.mqtt.client as mqtt
import psutil
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from agent.contract import children, manifest, messages, topics, wire
from agent.contract.manifest import PAYLOAD_TYPE, FileRef, Manifest
from agent.contract.messages import (
    CHUNK_BYTES,
    CMD_TYPE,
    DESIRED_TYPE,
    Answer,
    Chunk,
    Cmd,
    ControllerStatus,
    Desired,
    DesiredModel,
    Hello,
    Infer,
    Message,
    ModelState,
    Need,
    Reported,
    Result,
    Stamper,
    SwapRecord,
    Work,
)  # fmt: skip
from agent.contract.signing import PrivateKey, seal, write_secret
from agent.contract.tensors import Tensor
from agent.enroll import Identity
from agent.link import Broker
from controller.broker.config import Listen, rumqttd
from controller.settings import Limits
from tests import builders

M = TypeVar("M", bound=Message)
PATIENCE_S = 20.0


class FakeBroker:
    """The embedded broker as the controller starts it; `stop` and `start` again keep the port."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.broker = Broker("127.0.0.1", self.port, "lepta", secrets.token_hex(8))
        self._config = folder / "broker.toml"
        listen = Listen("127.0.0.1", self.port, self.broker.username, self.broker.password)
        write_secret(self._config, rumqttd(listen, Limits()))
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        process = self._process = subprocess.Popen(
            children.command("controller.broker.embedded"), stdin=subprocess.PIPE, env=children.environment()
        )
        assert process.stdin is not None
        process.stdin.write(f"{self._config}\n".encode())
        process.stdin.flush()
        until(lambda: _accepts(self.port), "the broker accepts connections")

    def stop(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            self._process = None


class FakeController:
    """Speaks the contract. `loses` names chunks that are not sent the first time; `sent` counts chunks per blob."""

    def __init__(self, broker: Broker, hears: Sequence[str] = topics.AGENT_UP) -> None:
        """`hears`: kinds of messages that it listens to."""
        self._hears = tuple(hears)
        self.controller_key, self.release_key = PrivateKey.generate(), PrivateKey.generate()
        self.broker = broker
        self.stamper = Stamper(secrets.token_hex(8))
        self.blobs: dict[str, bytes] = {}
        self.loses: set[tuple[str, int]] = set()
        self.changes: set[tuple[str, int]] = set()
        self.stalls_after: int | None = None
        self.sent: dict[str, list[int]] = defaultdict(list)
        self.generation = 0
        self._heard: dict[type[Message], list[tuple[str, Message]]] = defaultdict(list)
        self._news = threading.Condition()
        self._client = self._connect()

    # -- models

    def add(self, content: bytes) -> FileRef:
        ref = builders.file_ref(content)
        self.blobs[ref.digest] = content
        return ref

    def release(
        self,
        content: bytes,
        *,
        version: int = 1,
        golden: tuple[bytes, bytes] | None = None,
        key: PrivateKey | None = None,
        manifest_: Manifest | None = None,
        **details: Any,
    ) -> DesiredModel:
        """Sign and offer an artifact; returns what a desired state names."""
        golden = golden or builders.golden_for(content)
        described = manifest_ or builders.manifest_for(content, golden, version=version, sequence=version, **details)
        for file in (content, *golden):
            self.add(file)
        envelope = self.add(seal(manifest.encode(described), PAYLOAD_TYPE, key or self.release_key))
        return DesiredModel(
            model=described.model, version=described.version, artifact=described.artifact, manifest=envelope.digest,
            profile=described.profile,
        )  # fmt: skip

    def desire(self, agent: str, *models: DesiredModel, generation: int | None = None, **more: Any) -> int:
        """Publish the signed desired state; returns its generation."""
        self.generation = self.generation + 1 if generation is None else generation
        desired = Desired(agent=agent, generation=self.generation, models=models, **more)
        envelope = seal(self.stamper.encode(desired), DESIRED_TYPE, self.controller_key)
        self.publish(topics.agent(agent, "desired"), envelope, retain=True)
        return self.generation

    # -- requests

    def ask(self, agent: str, wanted: DesiredModel, inputs: dict[str, Any], *, ttl_ms: float = 10_000) -> str:
        """Send a request; returns its id."""
        request = secrets.token_hex(8)
        infer = Infer(
            request=request, model=wanted.model, artifact=wanted.artifact, ttl_ms=ttl_ms, inputs=tensors(inputs)
        )
        self.publish(topics.agent(agent, "infer"), self.stamper.encode(infer), qos=0)
        return request

    def infer(self, agent: str, wanted: DesiredModel, inputs: dict[str, Any], **more: Any) -> Answer:
        request = self.ask(agent, wanted, inputs, **more)
        return self.wait(Answer, lambda answer: answer.request == request, "an answer")

    def lease(self, agent: str, wanted: DesiredModel, inputs: dict[str, Any], **more: Any) -> None:
        fields: dict[str, Any] = {"job": "job", "shard": 0, "attempt": 1, "ttl_ms": 30_000.0} | more
        work = Work(model=wanted.model, artifact=wanted.artifact, inputs=tensors(inputs), **fields)
        self.publish(topics.agent(agent, "work"), self.stamper.encode(work))

    def result(self, **fields: Any) -> Result:
        return self.wait(Result, lambda r: all(getattr(r, k) == v for k, v in fields.items()), f"a result {fields}")

    def command(self, agent: str, verb: Any, id_: str = "one", session: str | None = None, **arguments: str) -> None:
        """Without `session`: for the one of the agent's last hello."""
        if session is None:
            session = self.session_of(agent)
        cmd = Cmd(agent=agent, id=id_, verb=verb, ttl_ms=10_000, arguments=arguments, session=session)
        self.publish(topics.agent(agent, "cmd"), seal(self.stamper.encode(cmd), CMD_TYPE, self.controller_key))

    def say_online(self, boot: str | None = None) -> None:
        if boot is not None:
            self.stamper = Stamper(boot)
        status = self.stamper.encode(ControllerStatus(online=True))
        self.publish(topics.CONTROLLER_STATUS, status, retain=True)

    # -- what was heard

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        self._client.publish(topic, payload, qos, retain)

    def heard(self, type_: type[M]) -> list[M]:
        with self._news:
            return [message for _, message in self._heard[type_] if isinstance(message, type_)]

    def forget(self) -> None:
        """Wait only for what comes from now on."""
        with self._news:
            self._heard.clear()

    def wait(self, type_: type[M], fits: Callable[[M], bool], what: str, patience: float = PATIENCE_S) -> M:
        """The first message that fits; AssertionError naming `what` if none comes."""
        deadline = time.monotonic() + patience
        with self._news:
            while True:
                for _, message in self._heard[type_]:
                    if isinstance(message, type_) and fits(message):
                        return message
                left = deadline - time.monotonic()
                if left <= 0:
                    heard = [message for _, message in self._heard[type_]][-5:]
                    raise AssertionError(f"no sign of {what} within {patience} s; last: {heard}")
                self._news.wait(left)

    def serve(self, agent: str, content: bytes, **details: Any) -> DesiredModel:
        """Release, desire, and wait until it serves."""
        wanted = self.release(content, **details)
        self.desire(agent, wanted)
        self.state(wanted, "serving")
        return wanted

    def state(self, wanted: DesiredModel, state: str, generation: int | None = None) -> ModelState:
        """Wait until the agent reports `wanted` in this state."""

        def find(reported: Reported) -> ModelState | None:
            if generation is not None and reported.generation != generation:
                return None
            return next((m for m in reported.models if m.manifest == wanted.manifest and m.state == state), None)

        found = find(self.wait(Reported, lambda r: find(r) is not None, f"{wanted.model} {wanted.version} {state}"))
        assert found is not None
        return found

    def swap(self, wanted: DesiredModel) -> SwapRecord:
        """Wait for the record of the swap to `wanted`."""

        def records(reported: Reported) -> bool:
            return reported.swap is not None and reported.swap.to_artifact == wanted.artifact

        reported = self.wait(Reported, records, f"the record of the swap to {wanted.version}")
        assert reported.swap is not None
        return reported.swap

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    # -- MQTT

    def session_of(self, agent: str) -> str:
        """The session of its last hello; waits for the first."""
        self.wait(Hello, lambda hello: hello.agent == agent, f"a hello of {agent}")
        with self._news:
            heard = [message for name, message in self._heard[Hello] if name == agent]
        assert isinstance(heard[-1], Hello)
        return heard[-1].session

    def _connect(self) -> mqtt.Client:
        client = mqtt.Client(CallbackAPIVersion.VERSION2, "lepta-controller", protocol=MQTTProtocolVersion.MQTTv5)
        client.username_pw_set(self.broker.username, self.broker.password)
        client.on_message = self._received
        client.on_socket_open = _opened
        up = threading.Event()

        def connected(*_: Any) -> None:
            client.subscribe([(topics.agent("+", kind), 1) for kind in self._hears])
            up.set()

        client.on_connect = connected
        client.reconnect_delay_set(1, 1)
        client.connect(self.broker.host, self.broker.port, clean_start=True)
        client.loop_start()
        assert up.wait(PATIENCE_S)
        return client

    def _received(self, client: mqtt.Client, _userdata: Any, raw: mqtt.MQTTMessage) -> None:
        sock: Any = client.socket()
        if sock is not None:
            wire.quick_ack(sock)
        topic = topics.parse(raw.topic)
        assert topic is not None
        message = messages.decode(topic.kind, bytes(raw.payload))
        with self._news:
            self._heard[type(message)].append((topic.names[0], message))
            self._news.notify_all()
        if isinstance(message, Need):
            self._deliver(topic.names[0], message)

    def _deliver(self, agent: str, need: Need) -> None:
        content = self.blobs.get(need.digest)
        if content is None:
            return
        count = -(-len(content) // CHUNK_BYTES)
        for first, last in need.ranges:
            for number in range(first, min(last, count - 1) + 1):
                self._send_chunk(agent if need.private else "", need.digest, number, content)

    def _send_chunk(self, reader: str, digest: str, number: int, content: bytes) -> None:
        key = (digest, number)
        if key in self.loses:
            self.loses.discard(key)
            return
        if self.stalls_after is not None and len(self.sent[digest]) >= self.stalls_after:
            return
        data = content[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
        if key in self.changes:
            self.changes.discard(key)
            data = builders.changed_byte(data)
        self.sent[digest].append(number)
        topic = topics.agent_blob(reader, digest, number) if reader else topics.blob(digest, number)
        self.publish(topic, self.stamper.encode(Chunk(size=len(content), data=data)))


class AgentProcess:
    """A real `lepta-agent` with an identity that needs no HTTP."""

    def __init__(
        self,
        folder: Path,
        controller: FakeController,
        name: str = "edge-1",
        config: str = "",
        controller_url: str = "",
        **identity_: Any,
    ) -> None:
        """`identity_`: fields of the identity that differ."""
        self.name = name
        self.folder = folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        identity = Identity(
            agent=name, broker=controller.broker, controller_key=controller.controller_key.public.pem(),
            release_key=controller.release_key.public.pem(), device_token="device-token",
            controller=controller_url,
        )  # fmt: skip
        identity = msgspec.structs.replace(identity, **identity_)
        write_secret(self.folder / "identity.json", msgspec.json.encode(identity).decode())
        self._config = folder / f"{name}.toml"
        self._config.write_text(config or "[limits]\nwatch_s = 0.15\nretry_first = 0.2\nload_idle = 0.5\n")
        self.log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._tree: list[psutil.Process] = []

    def start(self, faults: str = "", **environment: str) -> AgentProcess:
        arguments = ["run", "--data", str(self.folder), "--config", str(self._config)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*children.command("agent.cli"), *arguments],
                stderr=log,
                env=children.environment({"LEPTA_FAULTS": faults, **environment}),
            )
        return self

    @property
    def process(self) -> psutil.Process:
        assert self._process is not None
        return psutil.Process(self._process.pid)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def tree(self) -> list[psutil.Process]:
        """The agent and every child; remembered for `no_children_left`."""
        self._tree = [self.process, *self.process.children(recursive=True)]
        return self._tree

    def workers(self) -> list[psutil.Process]:
        """Worker processes: children of the zygote."""
        found = []
        for zygote in self.process.children():
            with suppress(psutil.NoSuchProcess):
                found += zygote.children()
        return found

    def kill(self) -> None:
        """SIGKILL to the supervisor alone."""
        assert self._process is not None
        self.tree()
        self._process.kill()
        self._process.wait()

    def stop(self, number: int = signal.SIGTERM, patience: float = PATIENCE_S) -> int:
        """Ask it to end; returns the exit status."""
        assert self._process is not None
        if self._process.poll() is None:
            self.tree()
            os.kill(self._process.pid, number)
        return self._process.wait(patience)

    def no_children_left(self) -> bool:
        return not psutil.wait_procs(self._tree, timeout=3.0)[1]

    def __enter__(self) -> AgentProcess:
        return self.start()

    def __exit__(self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                raise


def tensors(inputs: dict[str, Any]) -> tuple[Tensor, ...]:
    return tuple(Tensor(n, str(a.dtype), a.shape, np.ascontiguousarray(a).tobytes()) for n, a in inputs.items())


def arrays(found: Iterable[Tensor]) -> dict[str, Any]:
    return {t.name: np.frombuffer(t.data, t.dtype).reshape(t.shape) for t in found}


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def until(holds: Callable[[], bool], what: str, patience: float = PATIENCE_S) -> None:
    """Wait for something that cannot be waited on; AssertionError naming it."""
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, f"not within {patience} s: {what}"
        time.sleep(0.01)


def _opened(_client: mqtt.Client, _userdata: Any, sock: Any) -> None:
    wire.no_delay(sock)


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 0.2):
            return True
    except OSError:
        return False
