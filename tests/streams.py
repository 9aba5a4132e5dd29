"""What bindings are tested with: small models for pictures, tones and scores, and a user's program at the broker."""

from __future__ import annotations

import io
import threading
import uuid
from collections.abc import Callable
from functools import cache
from types import TracebackType
from typing import Any

import msgspec
import numpy as np
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from PIL import Image

from agent import sound
from agent.contract import topics
from agent.contract.bindings import Audio
from agent.contract.manifest import Preprocessing
from agent.contract.messages import Prediction, decode_as
from agent.link import Broker
from tests import builders
from tests.waiting import until

CORNERS = ("top left", "top right", "bottom left", "bottom right")
PICTURE = Preprocessing(height=8, width=8, scale=1 / 64)
WORDS = ("on", "off", "stop")
TONES = (440.0, 880.0, 1760.0)
"""Hertz of each word."""
AUDIO = Audio(
    rate=8000, window=2048, hop=1024, features="log-mel", frame=512, step=256, bands=24, coefficients=0
)  # fmt: skip
INTENTS = ("lights", "halt")


@cache
def corners(variant: int = 0) -> bytes:
    """Which corner of 8 x 8 pixels is bright; variants differ in their digest only."""
    weights = np.full((4, 8, 8), -0.02)
    for corner in range(4):
        row, column = 4 * (corner // 2), 4 * (corner % 2)
        weights[corner, row : row + 4, column : column + 4] = 0.1 + variant / 10_000
    return builders.dense(weights.reshape(4, 64), np.zeros(4))


def picture(corner: int, size: int = 32, kind: str = "PNG") -> bytes:
    """A picture of `size` squared that is bright in one corner."""
    values = np.zeros((size, size), np.uint8)
    row, column = size // 2 * (corner // 2), size // 2 * (corner % 2)
    values[row : row + size // 2, column : column + size // 2] = 255
    file = io.BytesIO()
    Image.fromarray(values).save(file, kind)
    return file.getvalue()


@cache
def words() -> bytes:
    """Which of the tones sounds, from log-mel features."""
    heard = np.stack([sound.features(AUDIO, tone(word, AUDIO.window)).ravel() for word in range(len(WORDS))])
    templates = heard - heard.mean(0)
    return builders.dense(templates / np.abs(templates).sum(1, keepdims=True), np.zeros(len(WORDS)))


def tone(word: int, samples: int, begin: int = 0) -> bytes:
    """int16 samples of a word's tone at half of the full scale."""
    at = (begin + np.arange(samples)) / AUDIO.rate
    return bytes((np.sin(2 * np.pi * TONES[word] * at) * 16_000).astype("<i2").tobytes())


@cache
def intents() -> bytes:
    """From the scores of the words: `on` and `off` are for the lights, `stop` is for everything."""
    return builders.dense(np.array([[1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]]), np.zeros(2))


class Program:
    """A user's program: publishes, and reads what it was told to read. Use as a context manager."""

    def __init__(self, broker: Broker, *filters: str) -> None:
        self._filters = filters
        self._news = threading.Lock()
        self._heard: list[tuple[str, bytes]] = []
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, f"user-{uuid.uuid4().hex[:12]}", protocol=MQTTProtocolVersion.MQTTv5
        )
        self._client.max_queued_messages_set(0)
        if broker.username:
            self._client.username_pw_set(broker.username, broker.password)
        self._broker = broker
        self._client.on_message = self._message

    def __enter__(self) -> Program:
        subscribed = threading.Event()
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.on_connect = lambda *_: self._connected(subscribed)
        self._client.reconnect_delay_set(1, 1)
        self._client.connect(self._broker.host, self._broker.port)
        self._client.loop_start()
        assert subscribed.wait(10)
        return self

    def _connected(self, subscribed: threading.Event) -> None:
        if self._filters:
            self._client.subscribe([(filter_, 0) for filter_ in self._filters])
        else:
            subscribed.set()

    def __exit__(self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, payload: bytes, qos: int = 0) -> None:
        self._client.publish(topic, payload, qos)

    def publish_json(self, topic: str, value: Any, qos: int = 0) -> None:
        self.publish(topic, msgspec.json.encode(value), qos)

    def heard(self) -> list[tuple[str, bytes]]:
        with self._news:
            return list(self._heard)

    def predictions(self, model: str = "") -> list[Prediction]:
        """What was predicted by this model, or by any."""
        parsed = [(topics.parse(topic), payload) for topic, payload in self.heard()]
        return [
            decode_as(Prediction, "predictions", payload)
            for topic, payload in parsed
            if topic is not None and topic.kind == "predictions" and model in ("", topic.names[0])
        ]

    def prediction(self, fits: Callable[[Prediction], bool], again: Callable[[], None] | None = None) -> Prediction:
        """The first that fits; `again` is called until one does."""

        def found() -> Prediction | None:
            if again is not None:
                again()
            return next((each for each in self.predictions() if fits(each)), None)

        assert until(found), f"no such prediction; heard {self.predictions()[-3:]}"
        prediction = found()
        assert prediction is not None
        return prediction

    def forget(self) -> None:
        with self._news:
            self._heard.clear()

    def _message(self, _client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        with self._news:
            self._heard.append((message.topic, bytes(message.payload)))
