"""The messages of the MQTT contract v1.

JSON for state, because people read it; MessagePack with raw bytes for tensors. Unknown fields are ignored and fields
are only ever appended. Every message carries the protocol version, the sender's boot id and a per-boot sequence number.
No wall clock decides anything: `ttl_ms` counts from receipt by the receiver's monotonic clock.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from agent.contract.bindings import MAX_BOUND
from agent.contract.bindings import Binding as Binding
from agent.contract.bindings import BindingState as BindingState
from agent.contract.fields import Count, Milliseconds, Short, Text
from agent.contract.infer import Answer as Answer
from agent.contract.infer import Fault as Fault
from agent.contract.infer import Infer as Infer
from agent.contract.infer import OneAnswer as OneAnswer
from agent.contract.infer import OneInfer as OneInfer
from agent.contract.manifest import Digest, FileRef, Shadow, Watch
from agent.contract.message import PROTOCOL as PROTOCOL
from agent.contract.message import Message as Message
from agent.contract.packing import Packed as Packed
from agent.contract.predictions import Guess as Guess
from agent.contract.seen import SeenWindow as SeenWindow
from agent.contract.swaps import ProbeResult as ProbeResult
from agent.contract.swaps import ShadowResult as ShadowResult
from agent.contract.swaps import SwapRecord as SwapRecord
from agent.contract.swaps import WatchResult as WatchResult
from agent.contract.swaps import Window as Window
from agent.contract.tensors import Tensor
from agent.contract.user import UserInfer as UserInfer
from agent.contract.user import UserTensor as UserTensor
from agent.contract.user import is_json
from firmware_profiles.profile import Facts

MAX_PAYLOAD = 120_000
"""Bytes of any payload: managed cloud brokers stop at 128 KB."""
MAX_RETAINED = 32_000
CHUNK_BYTES = 112 * 1024
"""Bytes of blob in one chunk; with its envelope it stays under MAX_PAYLOAD."""
MAX_INLINE = CHUNK_BYTES  # Bytes of tensors that travel inside a message; more goes by blob.
DESIRED_TYPE = "application/vnd.lepta.desired.v1+json"
CMD_TYPE = "application/vnd.lepta.cmd.v1+json"


class MessageError(ValueError):
    """A payload that is no message of its topic; it is counted and dropped."""


# -- presence ---------------------------------------------------------------------------------------------------


class ControllerStatus(Message, frozen=True, kw_only=True):
    """Retained, and the controller's will. A new boot id asks every agent for a hello."""

    online: bool


class AgentStatus(Message, frozen=True, kw_only=True):
    """Retained, and the agent's will; for people and tools."""

    online: bool
    session: Short = ""


class ModelState(msgspec.Struct, frozen=True, kw_only=True):
    """One model on one device."""

    model: Short
    version: Count
    artifact: Digest
    manifest: Digest
    profile: Short
    state: Literal[
        "fetching", "verifying", "staging", "probing", "switching", "watching", "serving", "refused", "failed"
    ]
    runtime: Short = ""
    """What answers, such as "ai-edge-litert 2.3.0, XNNPACK"."""
    reason: Text = ""
    """Why it was refused or failed."""
    cause: Short = ""
    """The same in a word for programs: one of `manifest.CAUSES`, where it was refused."""


class Hello(Message, frozen=True, kw_only=True):
    """Who I am and what I hold: sent after connecting and whenever the controller's boot id changes."""

    agent: Short
    session: Short
    """New with every connection of the agent; leases are bound to it."""
    generation: Count
    facts: Facts
    held: tuple[Digest, ...] = ()
    models: tuple[ModelState, ...] = ()
    agent_version: Short = ""
    root: Count = 0
    """Version of the newest root document that it holds; 0: none, its enrolled release key is its trust."""
    packings: tuple[Short, ...] = ()
    """What it can unpack, where packing is worth it on its way."""
    stored: bool = False
    """It can answer a shard as its model stores numbers."""
    together: Count = 0
    """Requests that it takes in one message; older agents take one."""


class ModelLoad(msgspec.Struct, frozen=True, kw_only=True):
    model: Short
    artifact: Digest
    rate: float
    """Rows per second over the last sample period."""
    service_ms: float
    """Mean time of one row in the worker; 0 before the first."""
    p95_ms: float | None = None
    """Of the requests answered since the last sample, from receipt to answer; None if there were none."""


class Load(Message, frozen=True, kw_only=True):
    """What the device does right now, from psutil."""

    cpu: float
    """Share of all processors, 0 to 1."""
    memory: float
    """Share of memory in use, 0 to 1."""
    queue: Count
    """Requests and shards that wait or run."""
    temperature: float | None = None
    """Degrees Celsius of the hottest sensor."""
    models: tuple[ModelLoad, ...] = ()
    refused: Count = 0
    """Payloads dropped since the agent started: garbage, replays, wrong signatures."""
    refusals: dict[str, Count] = msgspec.field(default_factory=dict)
    """Versions refused since the agent started, by cause."""
    bindings: tuple[BindingState, ...] = ()


# -- desired and reported ---------------------------------------------------------------------------------------


class DesiredModel(msgspec.Struct, frozen=True, kw_only=True):
    model: Short
    version: Count
    artifact: Digest
    manifest: Digest
    """Digest of the manifest's envelope, fetched like any blob."""
    profile: Short
    watch: Watch | None = None
    """What this rollout asks above the manifest's watch: what it names counts in its place."""
    shadow: Shadow | None = None
    """In place of the manifest's."""


class Desired(Message, frozen=True, kw_only=True):
    """What a device is to run. Signed by the controller key; `generation` only grows."""

    agent: Short
    generation: Count
    models: tuple[DesiredModel, ...] = ()
    drain: bool = False
    minimum_sequence: dict[str, int] = msgspec.field(default_factory=dict)
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    """What the operator labelled it, above its own labels: the groups that it is in."""
    roots: Annotated[tuple[str, ...], Meta(max_length=8)] = ()
    """Envelopes of the root documents that follow the one it holds, oldest first."""
    mirrors: Annotated[tuple[Short, ...], Meta(max_length=8)] = ()
    """Addresses below which blobs lie under their digests, best first; a relative one belongs to the controller's."""
    bindings: Annotated[tuple[Binding, ...], Meta(max_length=MAX_BOUND)] = ()


class Reported(Message, frozen=True, kw_only=True):
    generation: Count
    models: tuple[ModelState, ...] = ()
    swap: SwapRecord | None = None
    """Set once, when a swap ended."""
    bindings: tuple[BindingState, ...] = ()


# -- inference and work -----------------------------------------------------------------------------------------


class Prediction(Message, frozen=True, kw_only=True):
    """What a model found in one input of a binding; for everybody who may read it."""

    binding: Short
    model: Short
    artifact: Digest
    version: Count
    runtime: Short = ""
    label: Text = ""
    """Of the best class; its number where the model names none; empty where the output has no classes."""
    top: tuple[Guess, ...] = ()
    scores: tuple[float, ...] = ()
    """The first output of the row, flat; empty where it is longer than MAX_SCORES."""
    latency_ms: Milliseconds = 0.0
    """From receipt of the input to here."""
    queue_ms: Milliseconds = 0.0
    """Of those, until a worker had it."""
    service_ms: Milliseconds = 0.0
    """And inside the worker, decoding included."""


class Work(Message, frozen=True, kw_only=True):
    """A lease: compute this shard within `ttl_ms` of receipt."""

    job: Short
    shard: Count
    attempt: Count
    ttl_ms: Milliseconds
    model: Short
    artifact: Digest
    runtime: Short = ""
    """Runtime family that must compute it; empty for any."""
    inputs: tuple[Tensor, ...] = ()
    blob: FileRef | None = None
    packed: Packed | None = None
    """In place of `inputs`, for a device that can unpack it."""
    stored: bool = False
    """Outputs are to come as the model stores them: who asks knows their scales."""


class Result(Message, frozen=True, kw_only=True):
    job: Short
    shard: Count
    attempt: Count
    artifact: Short = ""
    runtime: Short = ""
    outputs: tuple[Tensor, ...] = ()
    fault: Fault | None = None
    queue_ms: Milliseconds = 0.0
    service_ms: Milliseconds = 0.0
    turned_down: bool = False
    """No worker tried, or its disk had lost the rows: the fault is not the shard's."""
    fetched: Count = 0
    """Bytes of its blob that came for it; 0 where that was on the device."""


# -- commands and blobs -----------------------------------------------------------------------------------------


class Cmd(Message, frozen=True, kw_only=True):
    """A signed one-shot, never retained. Executed once per id."""

    agent: Short
    id: Short
    verb: Literal["log-level", "measure"]
    ttl_ms: Milliseconds
    arguments: dict[str, str] = msgspec.field(default_factory=dict)
    session: Short = ""
    """The agent's session that it is for: recorded and sent again in another one, it is refused."""


class Reply(Message, frozen=True, kw_only=True):
    id: Short
    ok: bool
    message: Text = ""
    values: dict[str, float] = msgspec.field(default_factory=dict)


class Need(Message, frozen=True, kw_only=True):
    """Which chunks of a blob are missing here: inclusive ranges of chunk numbers."""

    digest: Digest
    ranges: Annotated[tuple[tuple[Count, Count], ...], Meta(max_length=256)]
    packings: tuple[Short, ...] = ()
    """The chunks may come packed so."""
    private: bool = False
    """They are inputs of a request or shard, and come on this agent's own topic."""


class Chunk(Message, frozen=True, kw_only=True):
    """Part of a blob: bytes from `number * CHUNK_BYTES`; the number stands in the topic."""

    size: Count
    """Bytes of the whole blob."""
    data: bytes
    packing: Short = ""
    """Of `data`; only towards one that can unpack it."""


M = TypeVar("M", bound=Message)

# Kind of topic -> (message, encoded as MessagePack?). `desired` and `cmd` travel inside a DSSE envelope.
KINDS: dict[str, tuple[type[Message], bool]] = {
    "controller/status": (ControllerStatus, False),
    "agents/hello": (Hello, False),
    "agents/status": (AgentStatus, False),
    "agents/load": (Load, False),
    "agents/desired": (Desired, False),
    "agents/reported": (Reported, False),
    "agents/cmd": (Cmd, False),
    "agents/reply": (Reply, False),
    "agents/need": (Need, False),
    "agents/work": (Work, True),
    "agents/result": (Result, True),
    "agents/infer": (Infer, True),
    "agents/answer": (Answer, True),
    "blobs": (Chunk, True),
    "agents/blobs": (Chunk, True),
    "predictions": (Prediction, False),
}
_BINARY = {kind for kind, binary in KINDS.values() if binary}
_DECODERS = {
    kind: (msgspec.msgpack.Decoder(type_) if binary else msgspec.json.Decoder(type_))
    for kind, (type_, binary) in KINDS.items()
}
_TENSORS = msgspec.msgpack.Decoder(tuple[Tensor, ...])


class Stamper:
    """Gives each outgoing message its boot id and sequence number, and encodes it."""

    def __init__(self, boot: str) -> None:
        self.boot = boot
        self._seq = 0

    def encode(self, message: Message) -> bytes:
        self._seq += 1
        stamped = msgspec.structs.replace(message, boot=self.boot, seq=self._seq)
        return msgspec.msgpack.encode(stamped) if type(message) in _BINARY else msgspec.json.encode(stamped)


def decode(kind: str, payload: bytes) -> Message:
    """Decode the payload of a topic of `kind` (see topics.parse); raise MessageError for anything else."""
    if len(payload) > MAX_PAYLOAD:
        raise MessageError(f"{kind}: {len(payload)} bytes, the contract allows {MAX_PAYLOAD}")
    try:
        message: Message = _DECODERS[kind].decode(payload)
    except (msgspec.DecodeError, KeyError, ValueError, RecursionError) as error:
        raise MessageError(f"{kind}: not a message: {error}") from error
    if message.v != PROTOCOL:
        raise MessageError(f"{kind}: protocol {message.v}, this side speaks {PROTOCOL}: update the older one")
    return message


def decode_as(type_: type[M], kind: str, payload: bytes) -> M:
    """`decode` for a caller who knows what the kind holds."""
    message = decode(kind, payload)
    if not isinstance(message, type_):
        raise MessageError(f"{kind}: expected {type_.__name__}, got {type(message).__name__}")
    return message


def decode_user(payload: bytes) -> UserInfer:
    """Decode what a user published, JSON or MessagePack; raise MessageError saying what is wrong."""
    try:
        if is_json(payload):
            return msgspec.json.decode(payload, type=UserInfer)
        return msgspec.msgpack.decode(payload, type=UserInfer)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise MessageError(f"not a request: {error}") from error


def encode_tensors(tensors: tuple[Tensor, ...]) -> bytes:
    """The bytes of a blob that carries tensors too large for a message."""
    return msgspec.msgpack.encode(tensors)


def decode_tensors(content: bytes) -> tuple[Tensor, ...]:
    try:
        return _TENSORS.decode(content)
    except (msgspec.DecodeError, ValueError) as error:
        raise MessageError(f"not a blob of tensors: {error}") from error
