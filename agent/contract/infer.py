"""The messages of inference: a routed request and its answer, or several in one message.

A broker, a socket and a process woken for each of them cost as much as a small model's answer. So requests for one
artifact that are there at the same time may travel together, and so may their answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from agent.contract.fields import Count, Milliseconds, Short, Text
from agent.contract.manifest import Digest, FileRef
from agent.contract.message import Message
from agent.contract.tensors import Tensor

MOST_TOGETHER = 64
"""Requests or answers in one message."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Why there is no result, and who is at fault: the user (do not retry), the device or the network (retry), us."""

    who: Literal["user", "device", "network", "us"]
    message: Text


class OneInfer(msgspec.Struct, frozen=True, kw_only=True):
    """One more request for the artifact of the message that it is in."""

    request: Short
    ttl_ms: Milliseconds
    inputs: tuple[Tensor, ...]
    traceparent: Short = ""


class Infer(Message, frozen=True, kw_only=True):
    """A routed request. Tensors inside, or a blob that holds `encode_tensors` of them."""

    request: Short
    model: Short
    artifact: Digest
    ttl_ms: Milliseconds
    inputs: tuple[Tensor, ...] = ()
    blob: FileRef | None = None
    traceparent: Short = ""
    """W3C Trace Context of the request; empty from older controllers."""
    more: Annotated[tuple[OneInfer, ...], Meta(max_length=MOST_TOGETHER)] = ()
    """Only towards one that takes several in one message."""
    together: bool = False
    """The answers may come several in one message."""

    def each(self) -> Iterator[Infer]:
        """The requests in it, one by one."""
        yield self
        for one in self.more:
            yield Infer(
                request=one.request,
                model=self.model,
                artifact=self.artifact,
                ttl_ms=one.ttl_ms,
                inputs=one.inputs,
                traceparent=one.traceparent,
                together=self.together,
            )


class OneAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One more answer by the artifact of the message that it is in."""

    request: Short
    outputs: tuple[Tensor, ...] = ()
    fault: Fault | None = None
    queue_ms: Milliseconds = 0.0
    service_ms: Milliseconds = 0.0


class Answer(Message, frozen=True, kw_only=True):
    request: Short
    artifact: Short = ""
    version: Count = 0
    runtime: Short = ""
    outputs: tuple[Tensor, ...] = ()
    """Real numbers as float32: dequantized by the artifact's own scales."""
    fault: Fault | None = None
    queue_ms: Milliseconds = 0.0
    """From receipt to the worker."""
    service_ms: Milliseconds = 0.0
    """Inside the worker."""
    more: Annotated[tuple[OneAnswer, ...], Meta(max_length=MOST_TOGETHER)] = ()
    """Only where the requests allowed it."""

    def each(self) -> Iterator[Answer]:
        """The answers in it, one by one."""
        yield self
        for one in self.more:
            yield Answer(
                request=one.request,
                artifact=self.artifact,
                version=self.version,
                runtime=self.runtime,
                outputs=one.outputs,
                fault=one.fault,
                queue_ms=one.queue_ms,
                service_ms=one.service_ms,
            )


_M = TypeVar("_M", Infer, Answer)
_BESIDE = 1024
"""Bytes of one request or answer beside its tensors, at most; a fault may say more."""


def together(messages: Sequence[_M], most_bytes: int) -> list[_M]:
    """The same in as few messages: those for one artifact that follow each other share one, with at most
    MOST_TOGETHER and about `most_bytes` in it. None of them holds several already, or lies in a blob."""
    if len(messages) == 1:
        return list(messages)
    groups: list[list[_M]] = []
    left = 0
    for message in messages:
        size = _size(message)
        last = groups[-1] if groups else None
        if last is not None and size <= left and len(last) < MOST_TOGETHER and _like(last[0]) == _like(message):
            last.append(message)
        else:
            groups.append([message])
            left = most_bytes
        left -= size
    return [_joined(group) for group in groups]


def _size(message: Infer | Answer) -> int:
    if isinstance(message, Infer):
        return _BESIDE + sum([len(tensor.data) for tensor in message.inputs])
    said = 4 * len(message.fault.message) if message.fault is not None else 0
    return _BESIDE + said + sum([len(tensor.data) for tensor in message.outputs])


def _like(message: Infer | Answer) -> tuple[object, ...]:
    """What is said once for all in a message."""
    if isinstance(message, Infer):
        return message.artifact, message.model
    return message.artifact, message.version, message.runtime


def _joined(group: list[_M]) -> _M:
    first, *rest = group
    return msgspec.structs.replace(first, more=tuple([_one(message) for message in rest])) if rest else first


def _one(message: Infer | Answer) -> OneInfer | OneAnswer:
    if isinstance(message, Infer):
        return OneInfer(
            request=message.request,
            ttl_ms=message.ttl_ms,
            inputs=message.inputs,
            traceparent=message.traceparent,
        )
    return OneAnswer(
        request=message.request,
        outputs=message.outputs,
        fault=message.fault,
        queue_ms=message.queue_ms,
        service_ms=message.service_ms,
    )
