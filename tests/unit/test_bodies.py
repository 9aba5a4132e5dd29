"""Bodies in pieces, compressed and not; what a caller accepts."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Callable

import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from controller.api import bodies
from controller.errors import BadRequest, TooLarge

PACK: dict[str, Callable[[bytes], bytes]] = {"identity": bytes, "gzip": gzip.compress, "deflate": zlib.compress}


def request(body: bytes = b"", step: int = 1000, **headers: str) -> Request:
    pieces = [body[at : at + step] for at in range(0, len(body), step)] or [b""]
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    messages[-1]["more_body"] = False
    waiting = iter(messages)

    async def receive() -> Message:
        return next(waiting)

    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": named}, receive)


def read(body: bytes, coding: str, step: int = 1000, limit: int = 1 << 20) -> bytes:
    return asyncio.run(bodies.read(request(body, step, content_encoding=coding), limit))


@given(body=st.binary(max_size=3000), coding=st.sampled_from(sorted(PACK)), step=st.integers(1, 700))
def test_a_body_arrives_as_it_was_whatever_its_pieces(body: bytes, coding: str, step: int) -> None:
    assert read(PACK[coding](body), coding, step) == body


@given(body=st.binary(max_size=200), coding=st.sampled_from(["gzip", "deflate"]))
def test_garbage_is_refused_or_read_and_never_breaks(body: bytes, coding: str) -> None:
    try:
        read(body, coding)
    except BadRequest:
        return
    assert PACK  # It happened to be compressed data.


@pytest.mark.parametrize("coding", sorted(PACK))
def test_a_body_has_at_most_so_many_bytes_after_decompression(coding: str) -> None:
    assert len(read(PACK[coding](bytes(5000)), coding, limit=5000)) == 5000
    with pytest.raises(TooLarge, match="at most 5,000 bytes"):
        read(PACK[coding](bytes(5001)), coding, limit=5000)


@pytest.mark.parametrize(
    ("accepts", "coding"),
    [
        ("", None),
        ("identity", None),
        ("gzip, deflate, br", "gzip"),
        ("deflate", "deflate"),
        ("br;q=1.0, GZIP ;q=0.5", "gzip"),
        ("gzip;q=0, deflate", "deflate"),
        ("gzip;q=0.0", None),
    ],
)
def test_an_answer_is_compressed_only_as_the_caller_accepts(accepts: str, coding: str | None) -> None:
    body = bytes(100_000)
    answer = asyncio.run(bodies.respond(accepts, body, "application/json", {"A": "1"}))
    assert answer.headers.get("Content-Encoding") == coding
    assert answer.headers["A"] == "1"
    content = bytes(answer.body)
    assert (zlib.decompress(content, wbits=47) if coding else content) == body


def test_a_short_answer_is_not_worth_compressing() -> None:
    answer = asyncio.run(bodies.respond("gzip", b"x" * 1000, "application/json"))
    assert "Content-Encoding" not in answer.headers
