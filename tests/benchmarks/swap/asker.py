"""Asks one device a steady stream of requests over MQTT: one thread, one connection, nothing between socket and clock.

`python -m tests.benchmarks.swap.asker AGENT MODEL ARTIFACT RATE` reads the broker's address as a JSON line, says
`ready`, asks until its input closes, and writes `[due, latency, ok]` for every request as one JSON line. Times are of
`time.monotonic()`; a request that is not answered in 10 s has failed.
"""

from __future__ import annotations

import gc
import json
import select
import socket
import sys
import time
from typing import TextIO

import msgspec
import numpy as np
from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion

from agent.contract import topics
from agent.contract.messages import Answer, Infer, Stamper, decode_as
from agent.contract.tensors import Tensor
from agent.contract.wire import no_delay, quick_ack
from agent.link import Broker
from tests.benchmarks.measure import Sample
from tests.benchmarks.swap.pair import FEATURES

PATIENCE_S = 10.0


class Asker:
    """`rate` requests a second, however long earlier ones take."""

    def __init__(self, broker: Broker, agent: str, model: str, artifact: str, rate: float) -> None:
        self._model, self._artifact, self._rate = model, artifact, rate
        self._topic, self._answers = topics.agent(agent, "infer"), topics.agent(agent, "answer")
        self._stamper = Stamper("asker")
        row = np.random.default_rng(0).uniform(-2, 2, (1, FEATURES)).astype(np.float32)
        self._row = Tensor("x", "float32", row.shape, row.tobytes())
        self._due: dict[str, float] = {}
        self._samples: list[Sample] = []
        self._subscribed = False
        self._mqtt = Client(CallbackAPIVersion.VERSION2, "asker", protocol=MQTTv5)
        self._mqtt.username_pw_set(broker.username, broker.password)
        self._mqtt.on_message = lambda _client, _data, message: self._answered(bytes(message.payload))
        self._mqtt.on_subscribe = lambda *_: setattr(self, "_subscribed", True)
        self._mqtt.on_connect = self._connected
        self._mqtt.connect(broker.host, broker.port)
        sock = self._mqtt.socket()
        assert isinstance(sock, socket.socket)
        self._sock = sock
        no_delay(sock)

    def connect(self) -> None:
        while not self._subscribed:
            self._turn(0.1, ())

    def ask(self) -> list[Sample]:
        """Until standard input ends, and every request has its answer or has failed."""
        start, number, asking = time.monotonic(), 0, True
        while asking or (self._due and time.monotonic() - start < PATIENCE_S):
            due = start + number / self._rate
            wait = max(0.0, due - time.monotonic()) if asking else 0.1
            if asking and wait == 0.0:
                self._send(f"q{number}", due)
                number += 1
            elif self._turn(wait, (sys.stdin,) if asking else ()):
                asking, start = False, time.monotonic()
        lost = [Sample(due, PATIENCE_S, False) for due in self._due.values()]
        return sorted([*self._samples, *lost])

    def _send(self, request: str, due: float) -> None:
        self._due[request] = due
        infer = Infer(
            request=request, model=self._model, artifact=self._artifact, ttl_ms=PATIENCE_S * 1000, inputs=(self._row,)
        )
        self._mqtt.publish(self._topic, self._stamper.encode(infer), 0)

    def _turn(self, wait: float, others: tuple[TextIO, ...]) -> bool:
        """Wait for something to read; whether it was one of `others`."""
        writing = [self._sock] if self._mqtt.want_write() else []
        reading: list[socket.socket | TextIO] = [self._sock, *others]
        readable, writable, _ = select.select(reading, writing, [], wait)
        if self._sock in readable:
            self._mqtt.loop_read()
            quick_ack(self._sock)
        if writable:
            self._mqtt.loop_write()
        self._mqtt.loop_misc()
        return any(other in readable for other in others)

    def _connected(self, *_: object) -> None:
        self._mqtt.subscribe(self._answers, 0)

    def _answered(self, payload: bytes) -> None:
        now, answer = time.monotonic(), decode_as(Answer, "agents/answer", payload)
        due = self._due.pop(answer.request, None)
        if due is not None:
            self._samples.append(Sample(due, now - due, answer.fault is None and len(answer.outputs) == 1))


def main(agent: str, model: str, artifact: str, rate: str) -> None:
    broker = msgspec.json.decode(sys.stdin.readline(), type=Broker)
    asker = Asker(broker, agent, model, artifact, float(rate))
    asker.connect()
    gc.disable()  # Its pauses, of 10 ms and more, are no wait for the agent.
    print("ready", flush=True)
    print(json.dumps(asker.ask()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
