"""Several requests, or answers, in one message: nothing is lost, mixed up or too long."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.infer import MOST_TOGETHER, Answer, Fault, Infer, together
from agent.contract.messages import MAX_INLINE, MAX_PAYLOAD, Stamper, decode
from agent.contract.tensors import Tensor


def tensor(size: int) -> Tensor:
    return Tensor("x", "uint8", (1, size), bytes(size))


SIZES = st.integers(0, 60_000)
TENSORS = st.lists(SIZES.map(tensor), min_size=1, max_size=1).map(tuple)
INFERS = st.builds(
    Infer,
    request=st.uuids().map(str),
    model=st.sampled_from(["digits", "words"]),
    artifact=st.sampled_from(["a" * 64, "b" * 64]),
    ttl_ms=st.floats(1, 1e4),
    inputs=TENSORS,
    traceparent=st.sampled_from(["", "00-" + "1" * 32 + "-" + "2" * 16 + "-01"]),
    together=st.just(True),
)
FAULTS = st.none() | st.builds(Fault, who=st.just("device"), message=st.text(max_size=100))
ANSWERS = st.builds(
    Answer,
    request=st.uuids().map(str),
    artifact=st.sampled_from(["a" * 64, "b" * 64]),
    version=st.integers(1, 2),
    runtime=st.sampled_from(["", "litert"]),
    outputs=TENSORS,
    fault=FAULTS,
    queue_ms=st.floats(0, 10),
    service_ms=st.floats(0, 10),
)


@given(st.lists(INFERS, max_size=100))
def test_every_request_comes_out_as_it_went_in_and_in_order(requests: list[Infer]) -> None:
    messages = together(requests, MAX_INLINE)
    out = [one for message in messages for one in message.each()]
    assert [msgspec.structs.replace(one, more=()) for one in out] == requests


@given(st.lists(ANSWERS, max_size=100))
def test_every_answer_comes_out_as_it_went_in_and_in_order(answers: list[Answer]) -> None:
    out = [one for message in together(answers, MAX_INLINE) for one in message.each()]
    assert [msgspec.structs.replace(one, more=()) for one in out] == answers


@given(st.lists(INFERS, max_size=100))
def test_what_is_joined_fits_into_a_message_and_is_one(requests: list[Infer]) -> None:
    stamper = Stamper("boot-1")
    for message in together(requests, MAX_INLINE):
        payload = stamper.encode(message)
        assert len(payload) <= MAX_PAYLOAD
        assert len(message.more) < MOST_TOGETHER
        assert isinstance(decode("agents/infer", payload), Infer)


def test_small_requests_share_a_message_and_those_for_another_model_do_not() -> None:
    def infer(name: str, model: str) -> Infer:
        return Infer(request=name, model=model, artifact="a" * 64, ttl_ms=1.0, inputs=(tensor(500),))

    messages = together([infer("1", "digits"), infer("2", "digits"), infer("3", "words")], MAX_INLINE)
    assert [[one.request for one in message.each()] for message in messages] == [["1", "2"], ["3"]]


def test_no_more_than_the_contract_allows_share_a_message() -> None:
    answers = [Answer(request=str(n)) for n in range(MOST_TOGETHER + 3)]
    assert [len(message.more) + 1 for message in together(answers, MAX_INLINE)] == [MOST_TOGETHER, 3]
