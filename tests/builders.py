"""Small models for tests, made without TensorFlow: good, bad, slow and broken ones, with their golden sets."""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from agent.contract.golden import AcceptanceSet, ParitySet, write_acceptance, write_parity
from agent.contract.manifest import Acceptance, FileRef, Manifest, Parity, Watch
from agent.contract.tensors import TensorSpec
from agent.runtime import Model, load, predict
from tests.flatgraph import LINEAR_SCALE, Array, Graph, Ref

RUNTIMES = ("ai-edge-litert", "tflite-runtime")
FEATURES, CLASSES = 16, 4
ACCEPTANCE = Acceptance(minimum=0.9, tolerated_loss=0.02)
WATCH = Watch()


@cache
def classifier(variant: int = 1, *, wrong: bool = False) -> bytes:
    """A sound int8 linear classifier, input `x` (16,), output `scores` (4,); 1 kB.

    Variants differ by a trace of noise, so they have digests of their own and agree on nearly every input.
    `wrong` gives the classes each other's weights: a faithful conversion of a badly trained version.
    """
    weights = np.random.default_rng(7).normal(size=(CLASSES, FEATURES))
    weights += np.random.default_rng(variant).normal(scale=0.003, size=weights.shape)
    return dense(np.roll(weights, 1, axis=0) if wrong else weights, np.zeros(CLASSES))


def dense(weights: Array, bias: Array) -> bytes:
    """An int8 linear classifier from float weights (classes, features); inputs reach from -4 to 4."""
    graph = Graph()
    x = graph.tensor("x", (1, weights.shape[1]), scale=8 / 255)
    logits = graph.dense("dense", x, weights, bias, scale=float(np.abs(weights).sum(1).max()) / 100)
    return graph.finish({"x": x}, {"scores": logits})


@cache
def slow(layers: int = 20) -> bytes:
    """An int8 network of about 0.3 ms of honest work per layer; input `x` (32, 32, 32), output `scores` (4,)."""
    graph = Graph(seed=3)
    x = flow = graph.tensor("x", (1, 32, 32, 32), scale=LINEAR_SCALE)
    for layer in range(layers):
        flow = graph.conv(f"conv{layer}", flow, 32, (3, 3))
    return graph.finish({"x": x}, {"scores": _head(graph, flow, CLASSES)})


@cache
def nan() -> bytes:
    """A float model of the classifier's shape that answers NaN to everything."""
    graph = Graph()
    x = graph.tensor("x", (1, FEATURES), "float32")
    kernel = graph.constant("kernel", np.full((CLASSES, FEATURES), np.nan, np.float32))
    bias = graph.constant("bias", np.zeros(CLASSES, np.float32))
    scores = graph.tensor("scores", (1, CLASSES), "float32")
    options = schema.FullyConnectedOptionsT()
    graph.operator("FULLY_CONNECTED", [x.at, kernel, bias], [scores.at], options)
    return graph.finish({"x": x}, {"scores": scores})


@cache
def two_inputs() -> bytes:
    """A float model with inputs `a` and `b` (3,) and output `sum` (3,)."""
    graph = Graph()
    a, b = graph.tensor("a", (1, 3), "float32"), graph.tensor("b", (1, 3), "float32")
    total = graph.tensor("sum", (1, 3), "float32")
    graph.operator("ADD", [a.at, b.at], [total.at], schema.AddOptionsT())
    return graph.finish({"a": a, "b": b}, {"sum": total})


@cache
def two_outputs() -> bytes:
    """A float model with inputs `a` and `b` (3,) and outputs `sum` and `product` (3,)."""
    graph = Graph()
    a, b = graph.tensor("a", (1, 3), "float32"), graph.tensor("b", (1, 3), "float32")
    total, product = graph.tensor("sum", (1, 3), "float32"), graph.tensor("product", (1, 3), "float32")
    graph.operator("ADD", [a.at, b.at], [total.at], schema.AddOptionsT())
    graph.operator("MUL", [a.at, b.at], [product.at], schema.MulOptionsT())
    return graph.finish({"a": a, "b": b}, {"sum": total, "product": product})


@cache
def custom_operator(name: str = "LeptaUnknown") -> bytes:
    """A well-formed file whose operator no runtime knows."""
    graph = Graph()
    x = graph.tensor("x", (1, FEATURES), scale=8 / 255)
    scores = graph.tensor("scores", (1, CLASSES), scale=LINEAR_SCALE)
    graph.operator(name, [x.at], [scores.at])
    return graph.finish({"x": x}, {"scores": scores})


def truncated(content: bytes, share: float = 0.5) -> bytes:
    return content[: int(len(content) * share)]


def changed_byte(content: bytes, at: int | None = None) -> bytes:
    """One bit flipped; without `at` in the middle of the file."""
    position = len(content) // 2 if at is None else at
    return content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :]


@cache
def dscnn(*, per_tensor: bool = False) -> bytes:
    """DS-CNN for keywords (49 x 10 x 1 -> 12), as in MLPerf Tiny, int8 with random weights: 2.7 M MACs."""
    graph = Graph(seed=1, per_tensor=per_tensor)
    x = graph.tensor("x", (1, 49, 10, 1), scale=LINEAR_SCALE)
    flow = graph.conv("stem", x, 64, (10, 4), stride=2)
    for block in range(4):
        flow = graph.depthwise(f"depthwise{block}", flow)
        flow = graph.conv(f"pointwise{block}", flow, 64, (1, 1))
    return graph.finish({"x": x}, {"scores": _head(graph, flow, 12)})


# MobileNetV2 (Sandler et al. 2018, table 2): expansion, channels, repeats, first stride.
_MOBILENET = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


@cache
def mobilenet_v2(width: float = 1.0, size: int = 224) -> bytes:
    """MobileNetV2 for 1,000 classes, int8 with random weights."""
    graph = Graph(seed=2)
    x = graph.tensor("x", (1, size, size, 3), scale=LINEAR_SCALE)
    flow = graph.conv("stem", x, _eights(32 * width), (3, 3), stride=2)
    for stage, (expansion, channels, repeats, first_stride) in enumerate(_MOBILENET):
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            flow = _bottleneck(graph, f"block{stage}.{repeat}", flow, expansion, _eights(channels * width), stride)
    flow = graph.conv("top", flow, max(1280, _eights(1280 * width)), (1, 1))
    return graph.finish({"x": x}, {"scores": _head(graph, flow, 1000)})


def golden_for(content: bytes, rows: int = 16, seed: int = 0) -> tuple[bytes, bytes]:
    """Parity and acceptance sets that the model passes perfectly: the runtime's own answers to random inputs.

    Of four times as many inputs the most decided are taken, so that a rounding elsewhere does not change a class.
    """
    model = load(content, runtimes=RUNTIMES)
    drawn = random_inputs(model, 4 * rows, seed)
    answers = predict(model, drawn)
    scores = next(iter(answers.values())).reshape(4 * rows, -1)
    best = np.sort(scores, axis=1)
    kept = np.sort(np.argsort(best[:, -2] - best[:, -1], kind="stable")[:rows])
    inputs = {name: array[kept] for name, array in drawn.items()}
    outputs = {name: array[kept] for name, array in answers.items()}
    labels = scores[kept].argmax(axis=1)
    return write_parity(ParitySet(inputs, outputs)), write_acceptance(AcceptanceSet(inputs, labels))


def random_inputs(model: Model, rows: int, seed: int = 0) -> dict[str, Array]:
    """Float32 inputs in user units, shape (rows, ...), from -2 to 2."""
    random = np.random.default_rng(seed)
    return {spec.name: random.uniform(-2, 2, (rows, *spec.shape)).astype(np.float32) for spec in model.inputs}


def manifest_for(
    content: bytes,
    golden: tuple[bytes, bytes],
    *,
    model: str = "digits",
    version: int = 1,
    profile: str = "x86-cpu",
    sequence: int = 1,
    inputs: tuple[TensorSpec, ...] | None = None,
    runtimes: tuple[str, ...] = RUNTIMES,
    acceptance: Acceptance = ACCEPTANCE,
    watch: Watch = WATCH,
    expires_at: int = 0,
) -> Manifest:
    """A manifest over these bytes. Give `inputs` for content that no runtime loads."""
    loaded = load(content, runtimes=RUNTIMES) if inputs is None else None
    files = dict(zip(("model", "parity", "acceptance"), map(file_ref, (content, *golden)), strict=True))
    return Manifest(
        model=model,
        version=version,
        profile=profile,
        sequence=sequence,
        issued_at=0,
        source=hashlib.sha256(f"{model} {version}".encode()).hexdigest(),
        files=files,
        inputs=loaded.inputs if loaded else inputs or (),
        outputs=loaded.outputs if loaded else (),
        operators=loaded.operators if loaded else (),
        parity=Parity(agreement=0.95, sqnr_db=15.0),
        acceptance=acceptance,
        runtimes=runtimes,
        watch=watch,
        expires_at=expires_at,
    )


def file_ref(content: bytes) -> FileRef:
    return FileRef(digest=hashlib.sha256(content).hexdigest(), size=len(content))


def _bottleneck(graph: Graph, name: str, x: Ref, expansion: int, channels: int, stride: int) -> Ref:
    flow = x if expansion == 1 else graph.conv(f"{name}/expand", x, x.shape[3] * expansion, (1, 1))
    flow = graph.depthwise(f"{name}/depthwise", flow, stride=stride)
    flow = graph.conv(f"{name}/project", flow, channels, (1, 1), relu=False)
    return graph.add(f"{name}/add", x, flow) if flow.shape == x.shape else flow


def _head(graph: Graph, x: Ref, classes: int) -> Ref:
    """Global average, a linear layer wide enough to be decided, softmax."""
    pooled = graph.mean("mean", x)
    weights = graph.random.normal(size=(classes, pooled.shape[1]))
    return graph.softmax("scores", graph.dense("logits", pooled, weights, np.zeros(classes), scale=LINEAR_SCALE * 4))


def _eights(channels: float) -> int:
    """The nearest multiple of 8, never more than 10 % below (the paper's own rounding)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8
