"""Requests that users publish over MQTT: `models/{model}/infer` in, `clients/{client}/answer` out and nowhere else.

JSON, or MessagePack with raw tensors; the answer speaks as the request did.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Any

import msgspec

from agent.contract import topics
from agent.contract.messages import MAX_PAYLOAD, MessageError, UserInfer, UserTensor, decode_user
from agent.contract.tensors import DTYPES, Tensor, TensorError, rows_of
from agent.contract.user import is_json
from controller import oip, tracing
from controller.background import Background
from controller.errors import BadRequest, LeptaError, Preparing
from controller.inference import Inference
from controller.outbox import Outbox

Encode = Callable[[Any], bytes]
_DTYPES = {oip.datatype(dtype): dtype for dtype in DTYPES}
log = logging.getLogger("lepta.users")


class UserRequests:
    """Owned by the event loop."""

    def __init__(self, inference: Inference, outbox: Outbox) -> None:
        self._inference = inference
        self._outbox = outbox
        self._background = Background()
        self.refused = 0
        """Payloads that were no request, or that named no client to answer."""

    def take(self, model: str, payload: bytes) -> None:
        """Never raises. Who cannot be answered is counted."""
        try:
            user = decode_user(payload[: MAX_PAYLOAD + 1])
            topic = topics.client_answer(topics.check_name(user.client, "client"))
        except (MessageError, topics.TopicError) as error:
            self.refused += 1
            log.debug("dropped a request for %s: %s", model, error)
            return
        # What broke is in the log; the user's own deadline ends his wait.
        encode = msgspec.json.encode if is_json(payload) else msgspec.msgpack.encode
        self._background.start(self._answer(model, user, topic, encode), lambda _: None)

    async def _answer(self, model: str, user: UserInfer, topic: str, encode: Encode) -> None:
        trace = self._inference.begin(model, tracing.new_id(random.getrandbits(128)), f"client {user.client}")
        try:
            answer = await self._inference.infer(trace, _tensors(user))
            parameters = {"artifact": answer.artifact, "device": trace.device, "runtime": answer.runtime}
            extra: dict[str, Any] = {
                "id": user.id or trace.id,
                "request": trace.id,
                "model_name": model,
                "model_version": str(answer.version),
                "parameters": parameters,
            }
            body, state = _body(answer.outputs, extra, encode), "answered"
        except LeptaError as error:
            failure = {"id": user.id or trace.id, "error": error.message, "who": error.who, "hint": error.hint}
            body, state = encode(failure), "preparing" if isinstance(error, Preparing) else "failed"
            trace.error = error.message
        if len(body) > MAX_PAYLOAD:
            too_large = "the answer is too large for MQTT"
            body = encode({"id": user.id or trace.id, "error": too_large, "who": "user", "hint": "use REST"})
        self._outbox.send_raw(topic, body)
        self._inference.close(trace, state)


def _tensors(user: UserInfer) -> tuple[Tensor, ...]:
    try:
        tensors = tuple(_raw(t) if isinstance(t.data, bytes) else oip.from_user((t,))[0] for t in user.inputs)
        rows_of(tensors)
    except (oip.ProtocolError, TensorError) as error:
        raise BadRequest(str(error)) from error
    return tensors


def _raw(tensor: UserTensor) -> Tensor:
    assert isinstance(tensor.data, bytes)
    dtype = _DTYPES.get(tensor.datatype)
    if dtype is None:
        raise TensorError(f"input {tensor.name!r} has datatype {tensor.datatype!r}; allowed: {', '.join(_DTYPES)}")
    return Tensor(tensor.name, dtype, tensor.shape, tensor.data)


def _body(outputs: tuple[Tensor, ...], extra: dict[str, Any], encode: Encode) -> bytes:
    if encode is msgspec.json.encode:
        return oip.encode(oip.Request("", (), (), {}, binary_by_default=False), outputs, extra)[0]
    described = [
        {"name": each.name, "datatype": oip.datatype(each.dtype), "shape": each.shape, "data": each.data}
        for each in outputs
    ]
    return encode({**extra, "outputs": described})
