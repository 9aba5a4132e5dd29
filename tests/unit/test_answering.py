"""Several requests that a worker answers together: each gets what it would get alone."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from agent import frames, runtime
from agent.answering import Answering
from agent.contract.golden import Array
from agent.contract.tensors import Tensor
from agent.local.questions import Desk
from controller.client.oip import encode_request
from tests import builders


def answering(content: bytes) -> Answering:
    model = runtime.load(content, runtimes=runtime.installed())
    start = frames.Start(
        model="m", path="", digest="a" * 64, runtimes=(), threads=1, inputs=model.inputs, outputs=model.outputs,
        operators=(), version=3, device="pi",
    )  # fmt: skip
    return Answering(model, start, Desk(start, model.runtime))


def tensors(**arrays: Array) -> tuple[Tensor, ...]:
    return tuple(Tensor(name, str(array.dtype), array.shape, array.tobytes()) for name, array in arrays.items())


def rows(count: int, seed: int = 0, dtype: str = "float32") -> Array:
    return np.random.default_rng(seed).uniform(-2, 2, (count, builders.FEATURES)).astype(dtype)


def plain(computed: frames.Computed) -> frames.Computed:
    """Without what may differ: how long it took."""
    return msgspec.structs.replace(computed, service_ms=0.0)


def asked(array: Array, id_: str = "") -> frames.Question:
    body, length = encode_request({"x": array})
    if id_:
        header = body[:length].replace(b"{", b'{"id":"%s",' % id_.encode(), 1)
        return frames.Question(header + body[length:], str(len(header)))
    return frames.Question(body, str(length))


BATCHES: dict[str, list[frames.Compute]] = {
    "alike": [frames.Compute(id=n, inputs=tensors(x=rows(1, n))) for n in range(5)],
    "of several rows": [frames.Compute(id=n, inputs=tensors(x=rows(n, n))) for n in (1, 3, 2)],
    "too many rows": [frames.Compute(id=n, inputs=tensors(x=rows(50, n))) for n in (1, 2)],
    "as stored": [frames.Compute(id=n, inputs=tensors(x=rows(2, n)), stored=n == 1) for n in range(3)],
    "other types": [
        frames.Compute(id=0, inputs=tensors(x=rows(1))),
        frames.Compute(id=1, inputs=tensors(x=rows(1, dtype="float64"))),
    ],
    "one of the wrong shape": [
        frames.Compute(id=0, inputs=tensors(x=rows(1))),
        frames.Compute(id=1, inputs=tensors(x=rows(1)[:, :3])),
    ],
    "all of the wrong shape": [frames.Compute(id=n, inputs=tensors(x=rows(1)[:, :3])) for n in range(2)],
    "one that is not a number": [
        frames.Compute(id=0, inputs=tensors(x=rows(1))),
        frames.Compute(id=1, inputs=tensors(x=np.full((1, builders.FEATURES), np.nan, np.float32))),
    ],
    "one without rows": [frames.Compute(id=0, inputs=tensors(x=rows(1))), frames.Compute(id=1, inputs=())],
    "none with rows": [frames.Compute(id=n, inputs=tensors(x=rows(0))) for n in range(2)],
    "questions": [frames.Compute(id=n, question=asked(rows(n + 1, n)), tensors=n == 0) for n in range(3)],
    "questions with ids": [frames.Compute(id=n, question=asked(rows(1, n), f"q{n}")) for n in range(3)],
    "a question for another version": [
        frames.Compute(id=0, question=asked(rows(1))),
        frames.Compute(id=1, question=msgspec.structs.replace(asked(rows(1)), version=2)),
    ],
    "a missing blob": [
        frames.Compute(id=0, inputs=tensors(x=rows(1))),
        frames.Compute(id=1, blob="nowhere", digest="b" * 64),
    ],
}


@pytest.mark.parametrize("what", BATCHES)
def test_together_each_gets_the_answer_that_it_gets_alone(what: str) -> None:
    orders = BATCHES[what]
    worker = answering(builders.classifier(1))
    together = [plain(computed) for computed in worker.answer(orders)]
    alone = [plain(computed) for order in orders for computed in worker.answer([order])]
    assert together == alone


@pytest.mark.parametrize("model", [builders.two_inputs, builders.two_outputs, builders.nan])
def test_several_inputs_and_outputs_and_nonsense_stay_with_their_request(model: Callable[[], bytes]) -> None:
    content = model()
    loaded = runtime.load(content, runtimes=runtime.installed())
    worker = answering(content)
    orders = [
        frames.Compute(id=n, inputs=tensors(**builders.random_inputs(loaded, rows=n + 1, seed=n))) for n in range(3)
    ]
    together = worker.answer(orders)
    for order, computed in zip(orders, together, strict=True):
        (alone,) = worker.answer([order])
        assert repr(plain(computed)) == repr(plain(alone))  # NaN is not equal to itself.
        assert computed.fault is None


def test_each_ones_time_is_its_share_of_what_all_took() -> None:
    computed = answering(builders.classifier(1)).answer(BATCHES["of several rows"])
    per_row = [one.service_ms / one.rows for one in computed]
    assert per_row == pytest.approx([per_row[0]] * 3)
    assert per_row[0] > 0
