"""PURE: what a worker is told to do with a request or shard."""

from __future__ import annotations

from agent import frames
from agent.contract.messages import Work
from agent.lines import Ask, Fed, Waiting


def compute(number: int, item: Waiting, *, tensors: bool) -> frames.Compute:
    """`tensors`: are those of an answer to a question or feed wanted too?"""
    message = item.message
    if isinstance(message, Ask):
        return frames.Compute(id=number, question=message.question, tensors=tensors)
    if isinstance(message, Fed):
        return frames.Compute(id=number, feed=message.feed, tensors=tensors)
    packed, stored = (message.packed, message.stored) if isinstance(message, Work) else (None, False)
    if item.blob:
        assert message.blob is not None
        return frames.Compute(id=number, blob=item.blob, digest=message.blob.digest, stored=stored)
    return frames.Compute(id=number, inputs=message.inputs, packed=packed, stored=stored)


def compare(item: Waiting, computed: frames.Computed) -> frames.Compare:
    """The same question for a candidate, with what the serving version answered."""
    asked = compute(0, item, tensors=True)
    return frames.Compare(
        inputs=asked.inputs, blob=asked.blob, digest=asked.digest, question=asked.question, feed=asked.feed,
        outputs=computed.outputs, packed=asked.packed,
    )  # fmt: skip
