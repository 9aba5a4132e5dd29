"""What is published when a request or shard was computed, or could not be."""

from __future__ import annotations

import msgspec

from agent import frames
from agent.contract.messages import MAX_PAYLOAD, Answer, Fault, Infer, Result, Stamper
from agent.lines import Ask, Fed, Waiting
from agent.serving import Member

_OF_THIS_DEVICE = (Ask, Fed)  # A union would be made anew with each request.


def told_here(item: Waiting, computed: frames.Computed, member: Member | None) -> bool:
    """Was it asked for on this device? Then who asked is told."""
    message = item.message
    if isinstance(message, _OF_THIS_DEVICE):
        message.answered(item, computed, member)
        return True
    return False


def reply(item: Waiting, computed: frames.Computed, member: Member | None, now: float) -> Answer | Result:
    """The answer or result; `member` is the worker that computed it, None if none did."""
    message = item.message
    assert not isinstance(message, _OF_THIS_DEVICE)  # Who asked is told, and not the controller.
    queue_ms = max(0.0, (item.sent or now) - item.received) * 1000
    artifact = member.pointer.wanted.artifact if member else ""
    ready = member.ready if member else None
    if isinstance(message, Infer):
        return Answer(
            request=message.request,
            artifact=artifact,
            version=member.pointer.wanted.version if member else 0,
            runtime=ready.runtime if ready else "",
            outputs=computed.outputs,
            fault=computed.fault,
            queue_ms=queue_ms,
            service_ms=computed.service_ms,
        )
    return Result(
        job=message.job,
        shard=message.shard,
        attempt=message.attempt,
        artifact=artifact,
        runtime=ready.family if ready else "",
        outputs=computed.outputs,
        fault=computed.fault,
        queue_ms=queue_ms,
        service_ms=computed.service_ms,
        turned_down=computed.fault is not None and (not item.sent or bool(computed.damaged)),
        fetched=item.fetched,
    )


def encode(message: Answer | Result, stamper: Stamper) -> bytes:
    """Its payload; a fault instead if the outputs do not fit into one message."""
    payload = stamper.encode(message)
    if len(payload) <= MAX_PAYLOAD:
        return payload
    too_long = f"the answer has {len(payload)} bytes, a message takes {MAX_PAYLOAD}: ask for fewer rows"
    return stamper.encode(msgspec.structs.replace(message, outputs=(), fault=Fault(who="user", message=too_long)))
