"""What the two examples share: a controller that runs, a binding, a stream that is played, and what the devices say."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from agent.contract import topics
from agent.contract.messages import Prediction, decode_as
from controller.client.rest import Client

PATIENCE_S = 20.0


def bind(client: Client, **binding: Any) -> None:
    """Bind on every device that runs the model, in place of what had the name before; wait until each reads."""
    if any(each.name == binding["name"] for each in client.bindings()):
        client.remove_binding(binding["name"])
    made = client.add_binding(binding)
    deadline = time.monotonic() + PATIENCE_S
    while not made.states or any(state.state != "active" for state in made.states):
        if time.monotonic() > deadline:
            raise SystemExit(f"no device reads {made.topic}: {made.states}; see `lepta binding ls`")
        time.sleep(0.1)
        made = next(each for each in client.bindings() if each.name == made.name)


@contextmanager
def connected(client: Client, *models: str) -> Iterator[mqtt.Client]:
    """A connection to the broker that prints what these models find."""
    access = client.broker()
    made = mqtt.Client(
        CallbackAPIVersion.VERSION2, f"example-{uuid.uuid4().hex[:8]}", protocol=MQTTProtocolVersion.MQTTv5
    )
    if access.username:
        made.username_pw_set(access.username, access.password)
    ready = threading.Event()
    made.on_message = lambda _c, _u, message: show(message.topic, message.payload)
    made.on_subscribe = lambda *_: ready.set()
    made.connect(access.host, access.port)
    made.loop_start()
    made.subscribe([(topics.predictions(model, "+"), 0) for model in models])
    ready.wait(PATIENCE_S)
    try:
        yield made
    finally:
        made.disconnect()
        made.loop_stop()


def play(broker: mqtt.Client, topic: str, pieces: Iterable[bytes], every_s: float) -> None:
    for piece in pieces:
        broker.publish(topic, piece)
        time.sleep(every_s)


def show(topic: str, payload: bytes) -> None:
    found = decode_as(Prediction, "predictions", payload)
    device = topic.rsplit("/", 1)[-1]
    score = f"{found.top[0].score:.2f}" if found.top else ""
    took = f"{found.latency_ms:.1f} ms, {found.service_ms:.1f} ms of it computing"
    print(f"  {device}: {found.model} {found.version} says {found.label} ({score}) after {took}", flush=True)
