"""Signed one-shot commands: each id is executed once."""

from __future__ import annotations

import logging
from collections.abc import Callable

from agent.contract.messages import CMD_TYPE, Cmd, MessageError, Reply, decode_as
from agent.contract.signing import PublicKey, open_sealed
from agent.enroll import Identity
from agent.settings import Limits
from agent.slot import Slot

_log = logging.getLogger("lepta.agent.commands")
LEVELS = ("debug", "info", "warning", "error")
_MOST_RUNS = 1000


class Commands:
    """Verbs: `log-level` (argument `level`), `measure` (arguments `model`, `runs`)."""

    def __init__(
        self,
        identity: Identity,
        limits: Limits,
        controller_key: Callable[[], PublicKey],
        slot: Callable[[str], Slot | None],
        reply: Callable[[Reply], None],
    ) -> None:
        self._agent = identity.agent
        self._remember = limits.finished
        self._controller_key = controller_key
        self._slot = slot
        self._reply = reply
        self._done: dict[str, None] = {}

    def execute(self, payload: bytes, session: str) -> None:
        """Raises SignatureError or MessageError for what is not a command of our controller to us in this session."""
        command = decode_as(Cmd, "agents/cmd", open_sealed(payload, CMD_TYPE, [self._controller_key()]))
        if command.agent != self._agent:
            raise MessageError(f"a command for another agent ({command.agent})")
        if command.session != session:
            # Ids are remembered until a restart only; what somebody recorded before it must not count after it.
            raise MessageError(f"a command for another session ({command.session or 'none'})")
        if command.id in self._done:
            return
        self._done[command.id] = None
        while len(self._done) > self._remember:
            del self._done[next(iter(self._done))]
        if command.verb == "log-level":
            self._log_level(command)
        else:
            self._measure(command)

    def _log_level(self, command: Cmd) -> None:
        level = command.arguments.get("level", "")
        if level not in LEVELS:
            self._reply(Reply(id=command.id, ok=False, message=f"level {level!r}; allowed: {', '.join(LEVELS)}"))
            return
        logging.getLogger("lepta").setLevel(level.upper())
        self._reply(Reply(id=command.id, ok=True))

    def _measure(self, command: Cmd) -> None:
        model, runs = command.arguments.get("model", ""), command.arguments.get("runs", "30")
        slot = self._slot(model)
        if slot is None or not runs.isdecimal() or not 0 < int(runs) <= _MOST_RUNS:
            message = f"measure wants a model that is here and 1 to {_MOST_RUNS} runs"
            self._reply(Reply(id=command.id, ok=False, message=message))
            return

        def done(median: float | None) -> None:
            if median is None:
                self._reply(Reply(id=command.id, ok=False, message=f"no worker serves {model}"))
            else:
                self._reply(Reply(id=command.id, ok=True, values={"latency_ms": median}))

        slot.serving.measure(int(runs), done)
