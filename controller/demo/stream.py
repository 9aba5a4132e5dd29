"""A steady stream of inference requests, each with its latency and who answered it."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from agent.contract.golden import Array
from controller.client.oip import HEADER_LENGTH, AnswerError, decode_answer, encode_request
from controller.client.rest import Client
from controller.demo.windows import Sample


@dataclass(frozen=True)
class StreamSettings:
    per_s: float = 100.0
    connections: int = 4
    answer_s: float = 30.0


class Stream:
    """Requests at fixed times, whether or not earlier ones are answered; latency counts from the time when one was due.

    Use as a context manager; `samples` may be read at any time.
    """

    def __init__(self, client: Client, model: str, inputs: Mapping[str, Array], settings: StreamSettings) -> None:
        """`inputs`: rows to ask about, one a request, in turn."""
        self._settings = settings
        self._address = urlsplit(client.place.url)
        self._path = f"/v2/models/{model}/infer"
        self._token = client.place.token()
        count = len(next(iter(inputs.values())))
        self._bodies = [encode_request({n: a[i : i + 1] for n, a in inputs.items()}) for i in range(count)]
        self._lock = threading.Lock()
        self._next = 0
        self._began = 0.0
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, name=f"stream-{i}") for i in range(settings.connections)]
        self.samples: list[Sample] = []

    def __enter__(self) -> Stream:
        self._began = time.time()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        connection = self._connection()
        try:
            while True:
                number, due = self._turn()
                if self._over.wait(max(0.0, due - time.time())):
                    return
                connection = self._once(connection, number, due)
        finally:
            connection.close()

    def _turn(self) -> tuple[int, float]:
        with self._lock:
            number = self._next
            self._next += 1
        return number, self._began + number / self._settings.per_s

    def _once(self, connection: http.client.HTTPConnection, number: int, due: float) -> http.client.HTTPConnection:
        """One request; returns the connection for the next one, a fresh one after a break."""
        body, length = self._bodies[number % len(self._bodies)]
        headers = {"Authorization": f"Bearer {self._token}", HEADER_LENGTH: str(length)}
        try:
            connection.request("POST", self._path, body, headers)
            response = connection.getresponse()
            content, told = response.read(), response.getheader(HEADER_LENGTH)
            if response.status != 200:
                raise AnswerError(f"status {response.status}: {content[:200]!r}")
            answer = decode_answer(content, told)
        except (OSError, http.client.HTTPException, AnswerError) as error:
            self.samples.append(Sample(due, (time.time() - due) * 1000, error=f"{type(error).__name__}: {error}"))
            connection.close()
            return self._connection()
        self.samples.append(Sample(due, (time.time() - due) * 1000, answer.version, answer.device))
        return connection

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._address.hostname or "127.0.0.1", self._address.port
        return http.client.HTTPConnection(host, port, timeout=self._settings.answer_s)
