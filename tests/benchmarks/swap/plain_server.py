"""A server as people write it around an interpreter: `python -m tests.benchmarks.swap.plain_server WAY FILE PORT`.

Speaks the calls of the Open Inference Protocol that MLServer gets: ready, infer, load. One process, one event loop,
which also invokes. The ways to load a new model, from the same FILE, when told to:

- `inline`: on the thread that serves. Requests wait.
- `pause`: stop serving, drop the old model, load, resume. Requests are refused meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from agent.contract.wire import no_delay
from agent.runtime import Model, load, predict
from tests.builders import RUNTIMES

Reply = tuple[int, dict[str, object]]
REFUSED: Reply = 503, {"error": "the model is being loaded"}


class Server:
    """Serves what FILE holds, from when it was last told to load."""

    def __init__(self, way: str, file: Path) -> None:
        self._pauses = way == "pause"
        self._file = file
        self._serving: tuple[str, Model] | None = self._built()

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        no_delay(writer.get_extra_info("socket"))
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                length = int(head.partition("content-length:")[2].partition("\r\n")[0] or 0)
                status, told = await self._answer(head.split()[1], await reader.readexactly(length))
                content = json.dumps(told).encode()
                writer.write(f"HTTP/1.1 {status} -\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)
        writer.close()

    async def _answer(self, path: str, body: bytes) -> Reply:
        if path.endswith("/load"):
            await self._load()
        if path.endswith(("/load", "/ready")):
            return 200, {}
        return REFUSED if self._serving is None else _inferred(*self._serving, body)

    async def _load(self) -> None:
        if self._pauses:
            self._serving = None
            self._serving = await asyncio.to_thread(self._built)
        else:
            self._serving = self._built()

    def _built(self) -> tuple[str, Model]:
        content = self._file.read_bytes()
        return hashlib.sha256(content).hexdigest(), load(content, runtimes=RUNTIMES)


def _inferred(digest: str, model: Model, body: bytes) -> Reply:
    given = json.loads(body)["inputs"][0]
    row = np.asarray(given["data"], np.float32).reshape(given["shape"])
    scores = predict(model, {given["name"]: row})["scores"]
    output = {"name": "scores", "shape": scores.shape, "datatype": "FP32", "data": scores.ravel().tolist()}
    return 200, {"model_name": "digits", "outputs": [output], "parameters": {"artifact": digest}}


async def serve(way: str, file: str, port: str) -> None:
    server = await asyncio.start_server(Server(way, Path(file)).connection, "127.0.0.1", int(port))
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
