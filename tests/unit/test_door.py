"""The door of the controller's HTTP server: uvicorn for real, on a socket; who answers behind it is a double."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import uvicorn
from starlette.requests import Request as Asked
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agent.contract.http1 import MAX_HEAD, Request
from controller.door import door, plainly_one
from controller.errors import Busy

INFER = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n%s"
USUAL = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


class Way:
    """Answers with the body it got, when it is let."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.most = 100
        self.waited: list[int] = []
        """How many callers did, at each look."""

    def takes(self, request: Request) -> bool:
        return request.path == "/v2/models/m/infer"

    async def answer(self, request: Request, peer: str) -> Response:
        assert peer == "127.0.0.1"
        await self.go.wait()
        return Response(b"short " + request.body, 200, {"X": "1"})

    def turn_away(self, inside: int, callers: int) -> Busy | None:
        self.waited.append(callers)
        return Busy("full", retry_s=2.0) if inside >= self.most else None


async def usual(scope: Scope, receive: Receive, send: Send) -> None:
    body = await Asked(scope, receive).body()
    await Response(b"usual " + body)(scope, receive, send)


class Caller:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()
            await asyncio.sleep(0.002)

    async def answer(self) -> tuple[int, bytes, bytes]:
        """Status, head and body of the next answer."""
        head = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 10)
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return int(head.split()[1]), head.lower(), await self._reader.readexactly(length)

    async def ended(self) -> bool:
        return await asyncio.wait_for(self._reader.read(1), 10) == b""

    def close(self) -> None:
        self._writer.close()


Talk = Callable[[Way, Callable[[], Awaitable[Caller]], uvicorn.Server], Awaitable[None]]


def talk(play: Talk) -> None:
    """Play it against a server of its own."""

    async def run() -> None:
        way = Way()
        async with serving(way) as (server, address), contextlib.AsyncExitStack() as stack:

            async def caller() -> Caller:
                found = Caller(*await asyncio.open_connection(*address))
                stack.callback(found.close)
                return found

            await play(way, caller, server)
            way.go.set()

    asyncio.run(run())


@contextlib.asynccontextmanager
async def serving(way: Way) -> AsyncIterator[tuple[uvicorn.Server, tuple[str, int]]]:
    config = uvicorn.Config(
        usual, http=door(way, way.turn_away), lifespan="off", ws="none", access_log=False, log_config=None
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config.load()
        server.lifespan = config.lifespan_class(config)
        await server.startup(sockets=[listener])
        ticks = asyncio.create_task(server.main_loop())
        try:
            yield server, listener.getsockname()
        finally:
            server.should_exit = True
            await ticks
            await server.shutdown(sockets=[listener])


def infer(body: bytes, more: bytes = b"") -> bytes:
    return INFER % (len(body), more, body)


def test_plain_requests_go_the_short_way_and_others_the_usual_one_on_one_connection() -> None:
    async def play(_way: Way, caller: Callable[[], Awaitable[Caller]], _server: uvicorn.Server) -> None:
        one = await caller()
        for _ in range(2):
            await one.send(infer(b"a" * 2000))
            status, head, body = await one.answer()
            assert (status, body) == (200, b"short " + b"a" * 2000)
            assert b"x: 1" in head
            assert b"date: " in head
            await one.send(USUAL)
            assert (await one.answer())[2] == b"usual "

    talk(play)


def test_a_request_may_come_in_any_pieces() -> None:
    async def play(_way: Way, caller: Callable[[], Awaitable[Caller]], _server: uvicorn.Server) -> None:
        one, whole = await caller(), infer(b"abc")
        for cut in range(1, len(whole)):
            await one.send(whole[:cut], whole[cut:])
            assert (await one.answer())[2] == b"short abc"
        await one.send(*(whole[at : at + 1] for at in range(len(whole))))
        assert (await one.answer())[2] == b"short abc"
        large = infer(bytes(700_000))
        await one.send(large[:300_000], large[300_000:])
        assert len((await one.answer())[2]) == 700_006

    talk(play)


def test_what_follows_at_once_is_answered_in_order_whichever_way_it_goes() -> None:
    async def play(_way: Way, caller: Callable[[], Awaitable[Caller]], _server: uvicorn.Server) -> None:
        one = await caller()
        await one.send(infer(b"1") + infer(b"2") + USUAL)
        assert [(await one.answer())[2] for _ in range(3)] == [b"short 1", b"short 2", b"usual "]
        # Behind a request that uvicorn has begun, it reads on.
        await one.send(USUAL + infer(b"3"))
        assert [(await one.answer())[2] for _ in range(2)] == [b"usual ", b"usual 3"]
        await one.send(infer(b"4"))
        assert (await one.answer())[2] == b"short 4"

    talk(play)


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /v2/models/other/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi",
        b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nA: " + b"a" * MAX_HEAD + b"\r\nContent-Length: 2\r\n\r\nhi",
    ],
    ids=["another path", "chunked", "a long head"],
)
def test_what_this_way_does_not_read_is_left_to_uvicorn_untouched(request_: bytes) -> None:
    async def play(_way: Way, caller: Callable[[], Awaitable[Caller]], _server: uvicorn.Server) -> None:
        one = await caller()
        for cut in (len(request_), 20, 50, len(request_) - 1):
            await one.send(request_[:cut], request_[cut:])
            assert (await one.answer())[2] == b"usual hi"
        await one.send(infer(b"5"))
        assert (await one.answer())[2] == b"short 5"

    talk(play)


def test_who_waits_for_a_word_before_the_body_gets_it() -> None:
    async def play(_way: Way, caller: Callable[[], Awaitable[Caller]], _server: uvicorn.Server) -> None:
        one, whole = await caller(), infer(b"late", b"Expect: 100-continue\r\n")
        await one.send(whole[:-4])
        assert await asyncio.wait_for(one._reader.readuntil(b"\r\n\r\n"), 10) == b"HTTP/1.1 100 Continue\r\n\r\n"
        await one.send(whole[-4:])
        assert (await one.answer())[2] == b"usual late"

    talk(play)


def test_who_finds_no_room_is_refused_and_may_try_again_on_the_connection() -> None:
    async def play(way: Way, caller: Callable[[], Awaitable[Caller]], _server: uvicorn.Server) -> None:
        way.most = 1
        way.go.clear()
        one, other = await caller(), await caller()
        await one.send(infer(b"first"))
        for _ in range(2):
            await other.send(infer(b"second"))
            status, head, body = await other.answer()
            assert status == 503
            assert b"retry-after: 2" in head
            assert b"full" in body
        way.go.set()
        assert (await one.answer())[2] == b"short first"
        await other.send(infer(b"second"))
        assert (await other.answer())[2] == b"short second"

    talk(play)


def test_a_last_request_is_answered_before_its_connection_ends() -> None:
    async def play(way: Way, caller: Callable[[], Awaitable[Caller]], server: uvicorn.Server) -> None:
        one = await caller()
        await one.send(infer(b"bye", b"Connection: close\r\n"))
        _, head, body = await one.answer()
        assert b"connection: close" in head
        assert body == b"short bye"
        assert await one.ended()
        # The same where the server stops meanwhile.
        way.go.clear()
        other = await caller()
        await other.send(infer(b"stop"))
        for connection in list(server.server_state.connections):
            connection.shutdown()
        way.go.set()
        assert (await other.answer())[2] == b"short stop"
        assert await other.ended()

    talk(play)


def test_callers_count_who_wait_for_an_answer_or_a_refusal_at_the_same_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("controller.door._REFUSAL_S", (0.5, 0.5))  # Nobody is told before all have asked.

    async def play(way: Way, caller: Callable[[], Awaitable[Caller]], _server: uvicorn.Server) -> None:
        way.most = 1
        way.go.clear()
        one, others = await caller(), [await caller() for _ in range(5)]
        await one.send(infer(b"in"))
        await asyncio.gather(*(other.send(infer(b"out")) for other in others))
        assert [(await other.answer())[0] for other in others] == [503] * 5
        assert way.waited == [0, 1, 2, 3, 4, 5]
        await others[0].send(infer(b"out"))
        assert (await others[0].answer())[0] == 503
        way.go.set()
        assert (await one.answer())[0] == 200
        await one.send(infer(b"in"))
        assert (await one.answer())[0] == 200
        assert way.waited[6:] == [5, 5], "they are remembered for a while"

    talk(play)


def test_a_caller_who_leaves_costs_only_his_own_answer() -> None:
    async def play(way: Way, caller: Callable[[], Awaitable[Caller]], _server: uvicorn.Server) -> None:
        way.most = 1
        way.go.clear()
        gone = await caller()
        await gone.send(infer(b"gone"))
        gone.close()
        await asyncio.sleep(0.05)
        way.go.set()
        one = await caller()
        while True:
            await one.send(infer(b"here"))
            status, _, body = await one.answer()
            if status == 200:
                break
        assert body == b"short here"

    talk(play)


@pytest.mark.parametrize(
    ("data", "plain"),
    [
        (INFER % (2, b"", b"hi"), True),
        (INFER % (2, b"connection : close\r\n", b"hi"), False),
        (INFER % (2, b"Content-length: 2\r\n", b"hi"), False),
        (INFER % (2, b"TRANSFER-ENCODING: chunked\r\n", b"hi"), False),
        (INFER % (2, b"Expect: 100-continue\r\n", b"hi"), False),
        (INFER % (2, b"X: 1\nTransfer-Encoding: chunked\r\n", b"hi"), False),
        (INFER % (2, b"", b"h"), False),
        (INFER % (2, b"", b"hi, and more"), False),
        (INFER.replace(b"%d", b"0x2") % (b"", b"hi"), False),
        (USUAL, False),
        (b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\n\r\n", False),
    ],
)
def test_only_what_is_plainly_one_request_is_refused_unread(data: bytes, plain: bool) -> None:
    assert plainly_one(data) is plain
