"""The client's calls about policies, preparations and stored answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from urllib.parse import urlencode

import msgspec

from controller import replies
from controller.answer_replies import AnswerPage, ModelPolicy, Preparation, StoredAnswer
from controller.client.http import API, Connection, part, read
from controller.errors import Busy

_POLL_S = 0.3


class KeptCalls(Connection):
    """Every method raises ApiError."""

    def policy(self, model: str) -> ModelPolicy:
        return self._get(f"/models/{part(model)}/policy", ModelPolicy)

    def set_policy(self, model: str, override: Mapping[str, object]) -> ModelPolicy:
        """`override`: fields of `policy.Override`; what is missing is as the controller has it."""
        body = msgspec.json.encode(override)
        headers = {"Content-Type": "application/json"}
        path = f"{API}/models/{part(model)}/policy"
        return read(self._send("PUT", path, content=body, headers=headers), ModelPolicy)

    def preparation(self, model: str) -> Preparation:
        return self._get(f"/models/{part(model)}/preparation", Preparation)

    def prepare(self, model: str, tell: Callable[[Preparation], None]) -> None:
        """Bring a model to a device, and wait for that. Raises Busy where it cannot be."""
        found = self._post(f"/models/{part(model)}/preparation", None, Preparation)
        while found.state != "ready":
            if found.state == "failed":
                raise Busy(found.error, found.hint)
            tell(found)
            time.sleep(_POLL_S)
            found = self.preparation(model)

    def answers(self, **search: object) -> AnswerPage:
        """`search`: model, device, version, state, trace_id, since, until, limit, after."""
        query = urlencode({name: value for name, value in search.items() if value is not None})
        return self._get(f"/answers?{query}", AnswerPage)

    def answer(self, request: str) -> StoredAnswer:
        return self._get(f"/answers/{part(request)}", StoredAnswer)

    def requests_of(self, trace_id: str) -> list[replies.Request]:
        """The requests of one trace, newest first."""
        return self._get(f"/requests?{urlencode({'trace_id': trace_id})}", list[replies.Request])
