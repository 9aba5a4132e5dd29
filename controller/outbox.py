"""Messages on their way out: stamped, encoded, and signed where the contract says so."""

from __future__ import annotations

from collections.abc import Callable

from agent.contract.messages import Message, Stamper
from agent.contract.signing import PrivateKey, seal
from controller.bus import Bus


class Outbox:
    """Sends on the bus. False means that there is no connection: nothing was sent and nothing is queued."""

    def __init__(self, bus: Bus, stamper: Stamper, key: PrivateKey) -> None:
        self._bus = bus
        self._stamper = stamper
        self._key = key

    def publish(self, topic: str, message: Message, *, now: bool) -> bool:
        """QoS 0: requests, which are tried again when they get lost. `now`: as in `Bus.publish`."""
        return self._bus.publish(topic, self._stamper.encode(message), qos=0, now=now)

    def send(self, topic: str, message: Message, *, on_acked: Callable[[], None] | None = None) -> bool:
        """QoS 1; `on_acked` is called when the broker has it."""
        return self._bus.publish(topic, self._stamper.encode(message), qos=1, on_acked=on_acked)

    def send_sealed(self, topic: str, message: Message, payload_type: str, *, retain: bool) -> bool:
        """QoS 1, signed with the controller key."""
        envelope = seal(self._stamper.encode(message), payload_type, self._key)
        return self._bus.publish(topic, envelope, qos=1, retain=retain)

    def send_raw(self, topic: str, payload: bytes) -> bool:
        """QoS 1, to a user: not one of our messages."""
        return self._bus.publish(topic, payload, qos=1)
