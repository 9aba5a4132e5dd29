"""One full sample of everything that contract v1 defines, and the golden files made from them.

`python -m tests.contract.samples` writes the golden files that do not exist yet. It never overwrites one: a golden file
is what an agent in the field sends, for as long as v1 is spoken.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from agent.contract import manifest, messages, signing
from agent.contract.bindings import Audio
from agent.contract.manifest import (
    Acceptance,
    FileRef,
    Limits,
    Manifest,
    Parity,
    Preprocessing,
    Shadow,
    Target,
    Watch,
)
from agent.contract.messages import (
    AgentStatus,
    Answer,
    Binding,
    BindingState,
    Chunk,
    Cmd,
    ControllerStatus,
    Desired,
    DesiredModel,
    Fault,
    Guess,
    Hello,
    Infer,
    Load,
    Message,
    ModelLoad,
    ModelState,
    Need,
    OneAnswer,
    OneInfer,
    Packed,
    Prediction,
    ProbeResult,
    Reply,
    Reported,
    Result,
    ShadowResult,
    SwapRecord,
    UserInfer,
    UserTensor,
    WatchResult,
    Window,
    Work,
)
from agent.contract.root import Root
from agent.contract.tensors import Tensor, TensorSpec
from firmware_profiles.profile import Facts

GOLDEN = Path(__file__).with_name("golden") / "v1"

_A, _B, _C = ("a1" * 32, "b2" * 32, "c3" * 32)
_TENSOR = Tensor("x", "float32", (2, 3), bytes(range(24)))
_BLOB = FileRef(_C, 300_000)
_FAULT = Fault(who="device", message="no memory left")
_STATE = ModelState(
    model="digits",
    version=2,
    artifact=_A,
    manifest=_B,
    profile="x86-cpu",
    state="refused",
    runtime="ai-edge-litert 2.3.0, XNNPACK",
    reason="accuracy 0.41 on the acceptance set, at least 0.93 is asked",
)
_FACTS = Facts(
    machine="aarch64",
    system="linux",
    board="Raspberry Pi 4 Model B Rev 1.4",
    cpus=4,
    memory_mb=3794,
    disk_mb=20_000,
    accelerators=("fpga",),
    runtimes=("ai-edge-litert", "tflite-runtime"),
    python="3.11.2",
    labels={"site": "north"},
    overridden=("accelerators",),
)
_SWAP = SwapRecord(
    model="digits",
    to_version=2,
    to_artifact=_A,
    outcome="committed",
    from_version=1,
    from_artifact=_B,
    reason="asked for",
    way="http",
    fetched_bytes=105_000,
    fetch_s=0.5,
    total_s=1.25,
    gap_ms=0.5,
    probe=ProbeResult(
        agreement=0.99,
        sqnr_db=30.5,
        accuracy=0.97,
        serving_accuracy=0.96,
        latency_ms=0.25,
        memory_mb=16.5,
        load_ms=18.5,
    ),
    control=Window(requests=200, failed=0, p50_ms=1.5, p99_ms=2.5),
    during=Window(requests=201, failed=1, p50_ms=1.25, p99_ms=3.5),
)

_TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SAMPLES: dict[str, Message] = {
    "controller/status": ControllerStatus(online=True),
    "agents/hello": Hello(
        agent="pi-7",
        session="s1",
        generation=4,
        facts=_FACTS,
        held=(_A, _B),
        models=(_STATE,),
        agent_version="0.1.0",
    ),
    "agents/status": AgentStatus(online=False, session="s1"),
    "agents/load": Load(
        cpu=0.5,
        memory=0.25,
        queue=3,
        temperature=61.5,
        models=(ModelLoad(model="digits", artifact=_A, rate=120.5, service_ms=0.75, p95_ms=2.5),),
        refused=2,
    ),
    "agents/desired": Desired(
        agent="pi-7",
        generation=5,
        models=(DesiredModel(model="digits", version=2, artifact=_A, manifest=_B, profile="x86-cpu"),),
        drain=True,
        minimum_sequence={"digits": 3},
    ),
    "agents/reported": Reported(generation=5, models=(_STATE,), swap=_SWAP),
    "agents/cmd": Cmd(
        agent="pi-7", id="c1", verb="log-level", ttl_ms=5000.0, arguments={"level": "debug"}, session="s-1"
    ),
    "agents/reply": Reply(id="c1", ok=False, message="no such level", values={"ms": 0.5}),
    "agents/need": Need(digest=_C, ranges=((0, 3), (7, 7))),
    "agents/work": Work(
        job="j1",
        shard=7,
        attempt=2,
        ttl_ms=30_000.0,
        model="digits",
        artifact=_A,
        runtime="ai-edge-litert",
        inputs=(_TENSOR,),
        blob=_BLOB,
    ),
    "agents/result": Result(
        job="j1",
        shard=7,
        attempt=2,
        artifact=_A,
        runtime="ai-edge-litert",
        outputs=(_TENSOR,),
        fault=_FAULT,
        queue_ms=1.5,
        service_ms=80.5,
    ),
    "agents/infer": Infer(request="r1", model="digits", artifact=_A, ttl_ms=2000.0, inputs=(_TENSOR,), blob=_BLOB),
    "agents/answer": Answer(
        request="r1",
        artifact=_A,
        version=2,
        runtime="ai-edge-litert",
        outputs=(_TENSOR,),
        fault=_FAULT,
        queue_ms=0.5,
        service_ms=0.25,
    ),
    "predictions": Prediction(
        binding="door",
        model="digits",
        artifact=_A,
        version=2,
        runtime="ai-edge-litert 2.3.0, XNNPACK",
        label="seven",
        top=(Guess(label="seven", score=0.75, number=7), Guess(label="one", score=0.25, number=1)),
        scores=(0.0, 0.25, 0.0, 0.75),
        latency_ms=4.5,
        queue_ms=0.5,
        service_ms=3.5,
    ),
    "blobs": Chunk(size=200_000, data=bytes(range(256))),
    "agents/blobs": Chunk(size=90_000, data=bytes(range(9))),
}
"""By kind of topic; every field holds something else than its default."""

_GROWN: dict[str, Message] = {
    "agents/infer": Infer(
        request="r1",
        model="digits",
        artifact=_A,
        ttl_ms=2000.0,
        inputs=(_TENSOR,),
        blob=_BLOB,
        traceparent=_TRACEPARENT,
    ),
    "agents/hello": msgspec.structs.replace(SAMPLES["agents/hello"], root=2),
    "agents/result": msgspec.structs.replace(SAMPLES["agents/result"], turned_down=True, fetched=300_000),
    "agents/load": msgspec.structs.replace(SAMPLES["agents/load"], refusals={"key": 3}),
    "agents/work": msgspec.structs.replace(
        SAMPLES["agents/work"], packed=Packed(packing="zlib", size=400_000, data=bytes(range(32)))
    ),
    "agents/need": msgspec.structs.replace(SAMPLES["agents/need"], packings=("zlib",)),
    "blobs": msgspec.structs.replace(SAMPLES["blobs"], packing="zlib"),
    "agents/blobs": msgspec.structs.replace(SAMPLES["agents/blobs"], packing="zlib"),
    "agents/desired": msgspec.structs.replace(SAMPLES["agents/desired"], labels={"site": "north"}, roots=("{}",)),
    "agents/reported": Reported(
        generation=5,
        models=(msgspec.structs.replace(_STATE, cause="probe"),),
        swap=msgspec.structs.replace(
            _SWAP,
            outcome="refused",
            watch=WatchResult(
                answers=500, faults=2, crashes=1, seconds=12.5, p95_before_ms=1.5, p95_ms=1.75, drift=0.25
            ),
            shadow=ShadowResult(compared=200, agreed=198, seconds=8.5),
            memory_peak_mb=41.5,
            alone=True,
            who="user",
            cause="probe",
        ),
    ),
}
"""The kinds to which fields were appended since their golden file was made, with those fields set."""
_GROWN_AGAIN: dict[str, Message] = {
    "agents/need": msgspec.structs.replace(_GROWN["agents/need"], private=True),
    "agents/hello": msgspec.structs.replace(_GROWN["agents/hello"], packings=("zlib",)),
    "agents/work": msgspec.structs.replace(_GROWN["agents/work"], stored=True),
    "agents/desired": msgspec.structs.replace(
        _GROWN["agents/desired"],
        mirrors=("https://mirror.example/lepta/", "files/"),
        models=(
            DesiredModel(
                model="digits",
                version=2,
                artifact=_A,
                manifest=_B,
                profile="x86-cpu",
                watch=Watch(answers=50, p95_ms=5.0),
                shadow=Shadow(requests=20),
            ),
        ),
    ),
}
"""And once more."""

_BINDING = Binding(
    name="door",
    model="digits",
    topic="doors/pi-7/camera",
    format="image",
    input="image",
    preprocessing=Preprocessing(8, 8, 3, 1 / 16, 0.5, True),
    rate=2.5,
    keep=8,
    top_k=5,
)
_LISTENING = Binding(
    name="ear",
    model="keyword",
    topic="rooms/1/microphone",
    format="pcm",
    audio=Audio(
        rate=16_000,
        window=16_000,
        hop=8000,
        sample="float32",
        features="mfcc",
        frame=640,
        step=320,
        bands=32,
        coefficients=12,
    ),
)
_BOUND = BindingState(
    name="door",
    model="digits",
    state="active",
    reason="no picture that can be read",
    received=9,
    predicted=5,
    dropped=3,
    failed=1,
)
_WITH_BINDINGS: dict[str, Message] = {
    "agents/hello": msgspec.structs.replace(_GROWN_AGAIN["agents/hello"], stored=True),
    "agents/load": msgspec.structs.replace(_GROWN["agents/load"], bindings=(_BOUND,)),
    "agents/desired": msgspec.structs.replace(_GROWN_AGAIN["agents/desired"], bindings=(_BINDING, _LISTENING)),
    "agents/reported": msgspec.structs.replace(_GROWN["agents/reported"], bindings=(_BOUND,)),
}
"""The same with bindings, and with what came after them."""

_TOGETHER: dict[str, Message] = {
    "agents/hello": msgspec.structs.replace(_WITH_BINDINGS["agents/hello"], together=64),
    "agents/infer": msgspec.structs.replace(
        _GROWN["agents/infer"],
        more=(OneInfer(request="r2", ttl_ms=1500.0, inputs=(_TENSOR,), traceparent=_TRACEPARENT),),
        together=True,
    ),
    "agents/answer": msgspec.structs.replace(
        SAMPLES["agents/answer"],
        more=(OneAnswer(request="r2", outputs=(_TENSOR,), fault=_FAULT, queue_ms=0.75, service_ms=0.125),),
    ),
}
"""Several requests and answers in one message."""

LATER = {2: _GROWN, 3: _GROWN_AGAIN, 4: _WITH_BINDINGS, 5: _TOGETHER}
"""By number of the golden file, what a kind has grown since `SAMPLES`."""


def newest(kind: str) -> Message:
    return next((grown[kind] for grown in reversed(LATER.values()) if kind in grown), SAMPLES[kind])


USER_SAMPLE = UserInfer(
    client="shop-3", inputs=(UserTensor(name="x", shape=(1, 2), datatype="FP32", data=[0.5, 1.5]),), id="q1"
)
TENSORS_SAMPLE = (_TENSOR, Tensor("mask", "bool", (2, 1), b"\x01\x00"))
MANIFEST_SAMPLE = Manifest(
    model="digits",
    version=2,
    profile="x86-cpu",
    sequence=9,
    issued_at=1_700_000_000,
    source=_B,
    files={"model": FileRef(_A, 105_000), "parity": FileRef(_B, 9000), "acceptance": FileRef(_C, 8000)},
    inputs=(TensorSpec("image", "int8", (8, 8, 1), 1 / 256, -128),),
    outputs=(TensorSpec("scores", "int8", (10,), 1 / 256, -128),),
    operators=("CONV_2D", "FULLY_CONNECTED", "SOFTMAX"),
    parity=Parity(0.98, 20.0),
    acceptance=Acceptance(0.93, 0.01),
    runtimes=("ai-edge-litert", "tflite-runtime"),
    threads=2,
    limits=Limits(64.0, 5.0),
    labels=("zero", "one"),
    preprocessing=Preprocessing(8, 8, 3, 1 / 16, 0.5, True),
)
MANIFEST_GROWN = msgspec.structs.replace(
    MANIFEST_SAMPLE,
    watch=Watch(
        answers=500, seconds=60.0, failures=4, error_rate=0.125, p95_ratio=3.0, p95_ms=5.0, drift=0.5, crashes=2
    ),
    shadow=Shadow(requests=200, seconds=20.0, good=0.975, bad=0.75),
    expires_at=1_900_000_000,
    target=Target(("pi-7",), ("site=north",)),
    runtime_minimum={"ai-edge-litert": "2.1"},
)
ROOT_SAMPLE = Root(version=2, root_key="PEM one", release_keys=("PEM two",), issued_at=1_700_000_000)


def path_of(kind: str) -> Path:
    """The golden file of a kind of topic, of `user`, `tensors`, `root` or `manifest`; `.2` and so on are LATER ones."""
    plain = kind.rstrip(".0123456789")
    binary = plain == "tensors" or (plain in messages.KINDS and messages.KINDS[plain][1])
    return GOLDEN / f"{kind.replace('/', '.')}.{'msgpack' if binary else 'json'}"


def stamped(message: Message) -> Message:
    return msgspec.structs.replace(message, boot="boot-1", seq=1)


def encoded() -> dict[str, bytes]:
    """Every sample as it goes over the wire."""
    found = {kind: messages.Stamper("boot-1").encode(message) for kind, message in SAMPLES.items()}
    for number, grown in LATER.items():
        found |= {f"{kind}.{number}": messages.Stamper("boot-1").encode(message) for kind, message in grown.items()}
    return {
        **found,
        "user": msgspec.json.encode(USER_SAMPLE),
        "tensors": messages.encode_tensors(TENSORS_SAMPLE),
        "manifest": manifest.encode(MANIFEST_SAMPLE),
        "manifest.2": manifest.encode(MANIFEST_GROWN),
        "root": msgspec.json.encode(ROOT_SAMPLE),
    }


ENVELOPE = GOLDEN / "agents.desired.dsse.json"
SIGNER = GOLDEN / "controller-key.pem"


def write_missing() -> list[Path]:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    written = []
    if not ENVELOPE.exists():
        key = signing.PrivateKey.generate()
        ENVELOPE.write_bytes(signing.seal(encoded()["agents/desired"], messages.DESIRED_TYPE, key))
        SIGNER.write_text(key.public.pem())
        written += [ENVELOPE, SIGNER]
    for kind, content in encoded().items():
        if not path_of(kind).exists():
            path_of(kind).write_bytes(content)
            written.append(path_of(kind))
    return written


if __name__ == "__main__":
    print("\n".join(map(str, write_missing())) or "nothing to add")
