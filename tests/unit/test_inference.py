"""One request over a fleet of doubles that implement the bus's port."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from agent.contract.manifest import FileRef
from agent.contract.messages import MAX_INLINE, Answer, Fault, Infer, Message, decode_tensors
from agent.contract.tensors import Tensor
from controller.errors import BadRequest, Busy, DeviceError, LeptaError, NotFound, Timeout, TooMany
from controller.inference import Inference, InferenceLimits
from controller.routing import Candidate
from controller.trace import STEPS, Trace

ARTIFACT = "1" * 64
ROW = (Tensor("x", "float32", (1, 2), np.ones((1, 2), np.float32).tobytes()),)
LIMITS = InferenceLimits(most_waiting=2, attempts=3, attempt_s=0.2, deadline_s=1.0)
Behaviour = Callable[[Infer], Answer | None]


def good(infer: Infer) -> Answer:
    return Answer(request=infer.request, artifact=infer.artifact, version=1, runtime="double", service_ms=0.5)


def silent(_: Infer) -> None:
    return None


def faulty(who: str) -> Behaviour:
    return lambda infer: Answer(request=infer.request, fault=Fault(who=who, message="no"))  # type: ignore[arg-type]


class Devices:
    """Devices by name; each answers as told, in the next turn of the event loop."""

    def __init__(self, **behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.numbers = itertools.count()
        self.sent: list[tuple[str, Infer]] = []
        self.connected = True
        self.blobs: dict[str, bytes] = {}
        self.used: list[str] = []
        self.traces: list[Trace] = []
        self.windows: dict[str, int] = {}
        self.draw = 0.0
        self.together = 0
        """Requests that each device takes in one message."""
        self.asked_twice = asyncio.Event()
        self.inference = Inference(
            self,
            self,
            limits=LIMITS,
            new_id=lambda: f"request-{next(self.numbers)}",
            draw=lambda: self.draw,
            keep_blob=self.keep,
            blob_used=self.used.append,
            finished=self.traces.append,
        )

    def candidates(self, model: str) -> list[Candidate]:
        serves = model == "digits"
        return [
            Candidate(
                name,
                online=True,
                artifact=ARTIFACT if serves else None,
                outstanding=0,
                queue=n,
                service_ms=1.0,
                cpu=0.0,
                version=1 if serves else 0,
                window=self.windows.get(name, 256),
                held=self.inference.flights.pace(name, model).held,
                together=self.together,
            )
            for n, name in enumerate(self.behaviour)
        ]

    def serving(self, model: str) -> list[Candidate]:
        return [candidate for candidate in self.candidates(model) if candidate.artifact]

    async def exists(self, model: str) -> bool:
        return model in ("digits", "resting")

    async def prepare(self, model: str, wait_s: float, why_not: Busy) -> str:
        raise why_not

    def publish(self, topic: str, message: Message, *, now: bool) -> bool:
        assert isinstance(message, Infer)
        device = topic.split("/")[3]
        self.sent.append((device, message))
        if "." in message.request:
            self.asked_twice.set()
        for one in message.each():
            answer = self.behaviour[device](one)
            if self.connected and answer is not None:
                asyncio.get_running_loop().call_soon(self.inference.answered, device, answer)
        return self.connected

    def keep(self, content: bytes) -> FileRef:
        self.blobs["b" * 64] = content
        return FileRef("b" * 64, len(content))

    async def ask(
        self, model: str = "digits", tensors: tuple[Tensor, ...] = ROW, caller: str = "", only: int = 0
    ) -> Answer:
        trace = self.inference.begin(model, "t", caller)
        trace.only = only
        try:
            answer = await self.inference.infer(trace, tensors)
        except LeptaError:
            self.inference.close(trace, "failed")
            raise
        self.inference.close(trace, "answered")
        return answer


def test_the_first_device_answers_and_every_step_has_its_time() -> None:
    devices = Devices(a=good)
    answer = asyncio.run(devices.ask())
    assert answer.artifact == ARTIFACT
    [trace] = devices.traces
    assert [step for step, _, _ in trace.steps] == list(STEPS[:6])
    assert all(ms >= 0 for _, ms, _ in trace.steps)
    assert (trace.state, trace.device, trace.attempts) == ("answered", "a", 1)


def test_requests_of_the_same_moment_share_a_message_where_their_device_takes_that() -> None:
    devices = Devices(a=good)
    devices.together = 64

    async def both() -> tuple[Answer, Answer]:
        return await asyncio.gather(devices.ask(), devices.ask())

    answers = asyncio.run(both())
    [(_, message)] = devices.sent
    assert [one.request for one in message.each()] == [answer.request for answer in answers]
    assert message.together
    assert len({answer.request for answer in answers}) == 2


def test_what_is_gathered_while_the_broker_goes_away_fails_in_words_and_leaves_nothing_behind() -> None:
    devices = Devices(a=good)
    devices.together, devices.connected = 64, False

    async def both() -> tuple[Answer | BaseException, Answer | BaseException]:
        return await asyncio.gather(devices.ask(), devices.ask(), return_exceptions=True)

    for error in asyncio.run(both()):
        assert isinstance(error, DeviceError)
        assert "broker is not connected" in error.message
    assert len(devices.inference.flights) == 0
    assert devices.inference.flights.pace("a", "digits").held == 0


def test_a_silent_device_is_given_up_and_another_one_answers() -> None:
    devices = Devices(a=silent, b=good)
    asyncio.run(devices.ask())
    assert [device for device, _ in devices.sent] == ["a", "b"]
    assert devices.traces[0].attempts == 2


def test_a_device_fault_is_retried_elsewhere_and_a_user_fault_is_not() -> None:
    devices = Devices(a=faulty("device"), b=good)
    asyncio.run(devices.ask())
    assert len(devices.sent) == 2
    wrong = Devices(a=faulty("user"), b=good)
    with pytest.raises(BadRequest):
        asyncio.run(wrong.ask())
    assert len(wrong.sent) == 1


def test_a_lost_device_is_noticed_at_once() -> None:
    devices = Devices(a=silent, b=good)

    async def lose_it() -> float:
        loop = asyncio.get_running_loop()
        loop.call_later(0.01, devices.inference.lost, "a")
        began = loop.time()
        await devices.ask()
        return loop.time() - began

    assert asyncio.run(lose_it()) < LIMITS.attempt_s


def test_an_answer_of_the_wrong_device_or_of_an_earlier_attempt_is_dropped() -> None:
    devices = Devices(a=silent)

    async def forge() -> None:
        asking = asyncio.ensure_future(devices.ask())
        await asyncio.sleep(0.01)
        request = devices.sent[0][1].request
        devices.inference.answered("b", Answer(request=request))
        await asyncio.sleep(0.01)
        assert not asking.done()
        asking.cancel()

    asyncio.run(forge())


def test_attempts_are_bounded() -> None:
    devices = Devices(a=faulty("device"))
    with pytest.raises(DeviceError, match="3 attempts failed"):
        asyncio.run(devices.ask())
    assert len(devices.sent) == 3
    assert len({infer.request for _, infer in devices.sent}) == 3


def test_nobody_waits_longer_than_the_deadline() -> None:
    devices = Devices(a=silent)

    async def in_a_hurry() -> None:
        trace = devices.inference.begin("digits", "t")
        await devices.inference.infer(trace, ROW, deadline_s=0.05)

    with pytest.raises(Timeout, match="a did not answer in time"):
        asyncio.run(in_a_hurry())


def test_an_unknown_model_and_one_that_nobody_serves_are_told_apart() -> None:
    devices = Devices(a=good)
    with pytest.raises(NotFound):
        asyncio.run(devices.ask("nonsense"))
    with pytest.raises(Busy, match="a: does not serve this model"):
        asyncio.run(devices.ask("resting"))


def test_one_version_is_asked_for_where_it_serves_and_nowhere_else() -> None:
    devices = Devices(a=good)
    assert asyncio.run(devices.ask(only=1)).version == 1
    with pytest.raises(Busy, match="digits version 2: a: serves version 1"):
        asyncio.run(devices.ask(only=2))
    assert len(devices.sent) == 1


def test_an_answer_of_a_version_that_took_over_meanwhile_is_not_taken_for_the_one_asked_for() -> None:
    devices = Devices(a=lambda infer: msgspec.structs.replace(good(infer), version=2), b=good)
    assert asyncio.run(devices.ask(only=1)).version == 1
    assert [device for device, _ in devices.sent] == ["a", "b"]


def test_too_many_at_once_are_refused_and_leave_room_again() -> None:
    devices = Devices(a=silent)

    async def crowd() -> list[object]:
        return await asyncio.gather(*(devices.ask() for _ in range(4)), return_exceptions=True)

    refused = [e for e in asyncio.run(crowd()) if isinstance(e, Busy)]
    assert len(refused) == 2
    devices.behaviour["a"] = good
    asyncio.run(devices.ask())
    assert devices.inference.flights.outstanding("a") == 0


def test_large_inputs_go_by_blob() -> None:
    devices = Devices(a=good)
    array = np.zeros((1, MAX_INLINE), np.float32)
    big = (Tensor("x", "float32", array.shape, array.tobytes()),)
    asyncio.run(devices.ask(tensors=big))
    _, infer = devices.sent[0]
    assert infer.inputs == ()
    assert infer.blob is not None
    assert decode_tensors(devices.blobs[infer.blob.digest]) == big
    assert devices.used == [infer.blob.digest], "they need not be kept any longer"


def test_without_a_broker_the_request_fails_with_a_reason() -> None:
    devices = Devices(a=silent)
    devices.connected = False
    with pytest.raises(DeviceError, match="broker is not connected"):
        asyncio.run(devices.ask())


def test_a_late_device_is_not_waited_for_and_its_late_answer_changes_nothing() -> None:
    devices = Devices(a=good, b=good)

    async def warmed_up() -> tuple[Answer, float]:
        for _ in range(32):
            await devices.ask()
        devices.behaviour["a"] = silent
        devices.sent.clear()
        loop = asyncio.get_running_loop()
        began = loop.time()
        answer = await devices.ask()
        taken = loop.time() - began
        [(first, asked), (second, _)] = devices.sent
        assert (first, second) == ("a", "b")
        assert devices.inference.flights.outstanding("a") == 1
        devices.inference.answered("a", good(asked))
        assert devices.inference.flights.outstanding("a") == 0
        return answer, taken

    answer, taken = asyncio.run(warmed_up())
    assert answer.artifact == ARTIFACT
    assert taken < LIMITS.attempt_s
    assert devices.traces[-1].device == "b"
    assert len(devices.traces) == 33


def test_the_late_device_may_still_be_the_first_to_answer() -> None:
    devices = Devices(a=good, b=good)

    async def warmed_up() -> Answer:
        for _ in range(32):
            await devices.ask()
        devices.behaviour.update(a=silent, b=silent)
        devices.sent.clear()
        asking = asyncio.ensure_future(devices.ask())
        await asyncio.wait_for(devices.asked_twice.wait(), 5)
        devices.inference.answered("a", good(devices.sent[0][1]))
        return await asking

    assert asyncio.run(warmed_up()).artifact == ARTIFACT
    assert devices.traces[-1].device == "a"


def test_when_all_devices_have_their_fill_the_rest_is_refused_at_once() -> None:
    devices = Devices(a=silent)
    devices.windows["a"] = 1

    async def crowd() -> tuple[object, object]:
        return await asyncio.gather(devices.ask(), devices.ask(), return_exceptions=True)

    first, second = asyncio.run(crowd())
    assert isinstance(first, LeptaError)
    assert isinstance(second, Busy)
    assert second.retry_s > 0
    assert len(devices.traces) == 1


def test_who_takes_more_than_others_is_refused_before_there_is_no_room_left() -> None:
    devices = Devices(a=silent)
    devices.windows["a"] = 2

    async def crowd() -> tuple[object, object]:
        greedy = [asyncio.ensure_future(devices.ask(caller="greedy"))]
        await asyncio.sleep(0)
        other = asyncio.ensure_future(devices.ask(caller="other"))
        await asyncio.sleep(0)
        outcome = await asyncio.gather(*greedy, other, return_exceptions=True)
        return outcome[0], outcome[1]

    greedy, other = asyncio.run(crowd())
    assert not isinstance(greedy, Busy | TooMany)
    assert not isinstance(other, Busy | TooMany)


def test_a_request_that_lost_its_device_is_not_turned_away_by_full_ones() -> None:
    devices = Devices(a=silent, b=silent)
    devices.windows["b"] = 0

    async def lose_it() -> Answer:
        asking = asyncio.ensure_future(devices.ask())
        await asyncio.sleep(0.01)
        devices.behaviour["b"] = good
        devices.inference.lost("a")
        return await asking

    asyncio.run(lose_it())
    assert devices.traces[-1].device == "b"
