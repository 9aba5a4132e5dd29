"""The controller's side of MQTT: one client that stays connected, hands messages in, and sends without queueing.

What cannot be sent now is not kept: the caller learns it at once, and the fleet's state says what to send later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from agent.contract import topics
from agent.contract.topics import Topic
from controller.broker import Broker
from controller.broker.port import sends_at_once
from controller.connection import Connection, ConnectionFailed, Login
from controller.settings import Limits

log = logging.getLogger("lepta.bus")

# Samples, answers: when one is lost, the next one or a retry makes up for it.
_QOS_0 = ("load", "answer")
FILTERS = (
    *((topics.agent("+", kind), int(kind not in _QOS_0)) for kind in topics.AGENT_UP),
    (topics.model_infer("+"), 1),
)


class Bus:
    """Owned by the event loop."""

    def __init__(
        self,
        broker: Broker,
        limits: Limits,
        *,
        client_id: str,
        status: Callable[[bool], bytes],
        draw: Callable[[], float],
    ) -> None:
        """`status(online)` encodes what stands retained on `controller/status`; `draw` gives numbers in [0, 1)."""
        self._broker = broker
        self._limits = limits
        self._client_id = client_id
        self._status = status
        self._draw = draw
        self._at_once = limits.bus_at_once
        self._connection: Connection | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._on_message: Callable[[Topic, bytes], None] = lambda _topic, _payload: None
        self._on_connected: Callable[[], None] = lambda: None
        self._on_lost: Callable[[], None] = lambda: None
        self.refused = 0
        """Messages on topics that the contract does not know, and messages that could not be sent."""

    @property
    def connected(self) -> bool:
        """Subscribed and announced; messages can be sent."""
        return self._connection is not None

    def listen(
        self,
        on_message: Callable[[Topic, bytes], None],
        on_connected: Callable[[], None] = lambda: None,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        """Who is told. Set before `start`; called on the event loop, and must not block."""
        self._on_message, self._on_connected, self._on_lost = on_message, on_connected, on_lost

    async def start(self) -> None:
        """Connect, and stay connected from then on; raises ConnectionFailed if the first try fails."""
        first = await self._connect()
        self._keeper = asyncio.create_task(self._keep(first), name="bus")

    async def stop(self) -> None:
        """Say that we are offline and leave. Safe to call twice."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        connection, self._connection = self._connection, None
        if connection is not None:
            self._announce(connection, online=False)
            await connection.close()

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int,
        retain: bool = False,
        on_acked: Callable[[], None] | None = None,
        now: bool = False,
    ) -> bool:
        """Send or not at all: False without a connection, or while too much is on its way. It is written with all else
        of this turn of the loop, or `now`.

        `on_acked` is called when the broker has the message (QoS 1) or when it left (QoS 0); never after a loss.
        """
        connection = self._connection
        sent = connection is not None and connection.publish(
            topic, payload, qos=qos, retain=retain, on_acked=on_acked, now=now
        )
        self.refused += not sent
        return sent

    async def _keep(self, connection: Connection) -> None:
        while True:
            reason = await asyncio.shield(connection.lost)
            self._connection = None
            log.warning("the connection to the broker was lost: %s", reason)
            _tell(self._on_lost)
            connection = await self._reconnect()

    async def _reconnect(self) -> Connection:
        pause = self._limits.reconnect_first_s
        while True:
            # Not all at the same moment: a broker that comes back has enough to do.
            await asyncio.sleep(pause * (0.5 + self._draw()))
            try:
                return await self._connect()
            except ConnectionFailed as error:
                log.warning("%s", error)
            pause = min(2 * pause, self._limits.reconnect_most_s)

    async def _connect(self) -> Connection:
        connection = Connection(self._login(), self._limits, self._at_once, self._received)
        try:
            await connection.open(FILTERS)
        except BaseException:
            await connection.close()
            raise
        if connection.receive_maximum < self._at_once:
            # paho fixes its window before it connects: once more, with what this broker takes.
            self._at_once = connection.receive_maximum
            await connection.close()
            return await self._connect()
        self._announce(connection, online=True)
        self._connection = connection
        _tell(self._on_connected)
        return connection

    def _announce(self, connection: Connection, *, online: bool) -> None:
        status = self._status(online)
        connection.publish(topics.CONTROLLER_STATUS, status, qos=1, retain=True)

    def _login(self) -> Login:
        broker = self._broker
        return Login(
            host=broker.host,
            port=broker.port,
            username=broker.username,
            password=broker.password,
            path=broker.path,
            client_id=self._client_id,
            will_topic=topics.CONTROLLER_STATUS,
            will=self._status(False),
            tls=broker.tls,
            acknowledge=not sends_at_once(broker.kind),
        )

    def _received(self, topic: str, payload: bytes) -> None:
        parsed = topics.parse(topic)
        if parsed is None:
            self.refused += 1
        else:
            self._on_message(parsed, payload)


def _tell(callback: Callable[[], None]) -> None:
    """A listener that fails must not cost us the connection."""
    try:
        callback()
    except Exception:
        log.exception("a listener of the bus failed")
