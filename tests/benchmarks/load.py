"""Inference requests over REST for load: binary tensors, the answer checked for the digest that gave it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

import numpy as np

from agent.runtime import load
from controller.client.oip import HEADER_LENGTH, encode_request
from controller.client.rest import Client
from tests.benchmarks.http import Pool
from tests.builders import RUNTIMES, random_inputs


class Requests:
    """Callable for the load generators: asks for one row. True if the answer is whole and by one of `artifacts`."""

    def __init__(
        self,
        client: Client,
        model: str,
        content: bytes,
        artifacts: set[str],
        *,
        int8: bool = False,
        answered: Callable[[bytes], None] | None = None,
    ) -> None:
        """`answered` gets the body of each good answer."""
        loaded = load(content, runtimes=RUNTIMES)
        inputs = random_inputs(loaded, 1)
        if int8:
            inputs = {name: np.clip(array * 60, -128, 127).astype(np.int8) for name, array in inputs.items()}
        self._body, length = encode_request(inputs)
        self._artifacts = [artifact.encode() for artifact in artifacts]
        headers = {
            "Authorization": f"Bearer {client.place.token()}",
            "Content-Type": "application/octet-stream",
            HEADER_LENGTH: str(length),
        }
        self._pool = Pool(f"{client.place.url}/v2/models/{model}/infer", headers)
        self._answered = answered
        self.refused: list[str] = []

    async def __aenter__(self) -> Requests:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pool.close()

    async def __call__(self, number: int) -> bool:
        try:
            response = await self._pool.post(self._body)
        except (OSError, asyncio.IncompleteReadError) as error:
            self.refused.append(repr(error))
            return False
        known = response.status == 200 and any(artifact in response.body for artifact in self._artifacts)
        if not known:
            self.refused.append(f"{response.status} {response.body[:300]!r}")
        elif self._answered is not None:
            self._answered(response.body)
        return known
