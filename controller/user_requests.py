"""Requests that users publish over MQTT: `models/{model}/infer` in, `clients/{client}/answer` out and nowhere else."""

from __future__ import annotations

import logging
import secrets
from typing import Any

import msgspec

from agent.contract import topics
from agent.contract.messages import MAX_PAYLOAD, MessageError, UserInfer, decode_user
from controller import oip
from controller.background import Background
from controller.errors import BadRequest, LeptaError
from controller.inference import Inference
from controller.outbox import Outbox

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
        self._background.start(self._answer(model, user, topic), lambda _: None)

    async def _answer(self, model: str, user: UserInfer, topic: str) -> None:
        trace = self._inference.begin(model, secrets.token_hex(16), f"client {user.client}")
        try:
            tensors = _tensors(user)
            answer = await self._inference.infer(trace, tensors)
            request = oip.Request(user.id, tensors, (), {}, binary_by_default=False)
            parameters = {"artifact": answer.artifact, "device": trace.device, "runtime": answer.runtime}
            extra: dict[str, Any] = {
                "id": user.id or trace.id,
                "request": trace.id,
                "model_name": model,
                "model_version": str(answer.version),
                "parameters": parameters,
            }
            body, _ = oip.encode(request, answer.outputs, extra)
            state = "answered"
        except LeptaError as error:
            failure = {"id": user.id or trace.id, "error": error.message, "who": error.who, "hint": error.hint}
            body, state = msgspec.json.encode(failure), "failed"
        if len(body) > MAX_PAYLOAD:
            body = msgspec.json.encode({"id": user.id, "error": "the answer is too large for MQTT", "hint": "use REST"})
        self._outbox.send_raw(topic, body)
        self._inference.close(trace, state)


def _tensors(user: UserInfer) -> Any:
    try:
        return oip.from_user(user.inputs)
    except oip.ProtocolError as error:
        raise BadRequest(str(error)) from error
