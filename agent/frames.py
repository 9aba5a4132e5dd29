"""What supervisor and worker say to each other on their pipe: length-prefixed MessagePack, never pickle.

A worker runs foreign model files in native code; if one breaks it, all it can send is one of these.
"""

from __future__ import annotations

import socket
import struct
from collections import deque

import msgspec

from agent.contract.manifest import Preprocessing
from agent.contract.messages import Binding, Fault, Guess, Packed, ProbeResult
from agent.contract.tensors import Tensor, TensorSpec

MAX_FRAME = 256 * 1024 * 1024
READ = 1 << 16
"""Bytes of one read. For more the allocator maps memory anew each time, at four times the cost of the read."""
_LENGTH = struct.Struct("<I")


class FrameError(ValueError):
    """Bytes on the pipe that are no frame: the other side is broken."""


class Start(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """First frame of every worker: what to load."""

    model: str
    path: str
    digest: str
    runtimes: tuple[str, ...]
    threads: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: tuple[str, ...]
    extra_ms_per_row: float = 0.0
    version: int = 0
    device: str = ""
    wait_ms: float = 0.0
    """An answer may wait so long for the next one."""
    labels: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None


class Probe(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Measure yourself on the golden sets; paths of blobs with their digests."""

    parity: str
    parity_digest: str
    acceptance: str
    acceptance_digest: str


class Question(msgspec.Struct, frozen=True):
    """A request of the Open Inference Protocol as it came: JSON, then raw tensors where `header_length` is told."""

    body: bytes
    header_length: str | None = None
    coding: str = "identity"
    """How the body is packed: one of oip_names.CODINGS, or not at all."""
    version: int = 0
    """The one that may answer, 0 for any."""


class Feed(msgspec.Struct, frozen=True):
    """What came on a bound topic, as it came, and what is declared about it."""

    payload: bytes
    binding: Binding


class Compute(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Answer these inputs; from `blob` (a path, checked against `digest`) where it is named, or a question or feed."""

    id: int
    inputs: tuple[Tensor, ...] = ()
    blob: str = ""
    digest: str = ""
    question: Question | None = None
    tensors: bool = True
    """Is more wanted than the answer to the question, or what was found in the feed: its tensors?"""
    feed: Feed | None = None
    packed: Packed | None = None
    """The inputs, where they are packed."""
    stored: bool = False
    """Outputs as the model stores them."""


class Compare(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Answer these inputs too, and say whether it is what the serving version answered."""

    outputs: tuple[Tensor, ...]
    inputs: tuple[Tensor, ...] = ()
    blob: str = ""
    digest: str = ""
    question: Question | None = None
    feed: Feed | None = None
    packed: Packed | None = None


class Measure(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Time `runs` single rows of zeros."""

    id: int
    runs: int


class Ready(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Loaded and warmed up."""

    family: str
    runtime: str
    load_ms: float


class Failed(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The worker cannot serve this artifact. `damaged` names blobs whose bytes do not match their digest."""

    fault: Fault
    damaged: tuple[str, ...] = ()


class Probed(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    result: ProbeResult


class Computed(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    id: int
    outputs: tuple[Tensor, ...] = ()
    rows: int = 0
    service_ms: float = 0.0
    fault: Fault | None = None
    classes: tuple[int, ...] = ()
    """Top-1 of the first rows, where the first output has classes."""
    level: float | None = None
    """Mean of the first output, where it has none."""
    nonsense: bool = False
    """NaN or infinity came out though only finite numbers went in."""
    body: bytes = b""
    """The answer to a question, as the protocol has it."""
    header_length: int = 0
    """Of its JSON, where raw tensors follow."""
    top: tuple[Guess, ...] = ()
    """Of a feed: its best classes."""
    scores: tuple[float, ...] = ()
    """Of a feed: the first output, where it is short enough to be told."""
    damaged: str = ""
    """Digest of the blob whose bytes were changed on the disk."""


class Compared(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    rows: int
    agreed: int


class Measured(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    id: int
    median_ms: float


ToWorker = Start | Probe | Compute | Compare | Measure
FromWorker = Ready | Failed | Probed | Computed | Compared | Measured


class Buffer:
    """Cuts a stream of bytes into frames' contents."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._wanted = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take what was read; return every content that is now whole, in order."""
        if self._bytes:
            self._bytes += data
            if len(self._bytes) < self._wanted:
                return []
            data = bytes(self._bytes)
            self._bytes.clear()
        whole, at, end = [], 0, len(data)
        self._wanted = _LENGTH.size
        while end - at >= _LENGTH.size:
            self._wanted = _LENGTH.size + _length(data, at)
            if end - at < self._wanted:
                break
            whole.append(data[at + _LENGTH.size : at + self._wanted])
            at += self._wanted
            self._wanted = _LENGTH.size
        if at < end:
            self._bytes += data[at:]
        return whole


def _length(data: bytes, at: int) -> int:
    length: int = _LENGTH.unpack_from(data, at)[0]
    if not 0 < length <= MAX_FRAME:
        raise FrameError(f"a frame of {length} bytes; 1 to {MAX_FRAME} are allowed")
    return length


_NO_LENGTH = bytes(_LENGTH.size)
_ENCODER = msgspec.msgpack.Encoder()
_TO_WORKER: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(Start | Probe | Compute | Compare | Measure)
_FROM_WORKER: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(
    Ready | Failed | Probed | Computed | Compared | Measured
)


def add(content: bytearray, frame: ToWorker | FromWorker) -> None:
    """Put the frame behind what is there, with its length in front."""
    begin = len(content) + _LENGTH.size
    content += _NO_LENGTH
    _ENCODER.encode_into(frame, content, begin)
    _LENGTH.pack_into(content, begin - _LENGTH.size, len(content) - begin)


def encode(*frames: ToWorker | FromWorker) -> bytearray:
    """One behind the other, as `Buffer` cuts them."""
    content = bytearray()
    for frame in frames:
        add(content, frame)
    return content


def decode_to_worker(content: bytes) -> ToWorker:
    try:
        return _TO_WORKER.decode(content)
    except (msgspec.DecodeError, ValueError) as error:
        raise FrameError(f"not a frame for a worker: {error}") from error


def decode_from_worker(content: bytes) -> FromWorker:
    try:
        return _FROM_WORKER.decode(content)
    except (msgspec.DecodeError, ValueError) as error:
        raise FrameError(f"not a frame of a worker: {error}") from error


class Pipe:
    """A worker's blocking end."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = Buffer()
        self._waiting: deque[bytes] = deque()

    def receive(self) -> ToWorker | None:
        """The next frame; None once the supervisor has closed its side."""
        while not self._waiting:
            data = self._sock.recv(READ)
            if not data:
                return None
            self._waiting.extend(self._buffer.feed(data))
        return decode_to_worker(self._waiting.popleft())

    def requests(self, most: int) -> list[Compute]:
        """Those that have come already, up to the first other frame."""
        found: list[Compute] = []
        while self._waiting and len(found) < most:
            frame = decode_to_worker(self._waiting[0])
            if not isinstance(frame, Compute):
                break
            self._waiting.popleft()
            found.append(frame)
        return found

    def send(self, *answers: FromWorker) -> None:
        """All of them in one write."""
        self._sock.sendall(encode(*answers))
