"""A request that came whole is read at once, and as a parser would read it; whatever else came is the parser's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.contract.http1 import Parser, Refused, Request, whole

MOST = 64
HEADS = (
    b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n",
    b"POST /v2/models/m/infer?q HTTP/1.1\r\nHOST: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n",
    b"GET / HTTP/1.0\r\nContent-Length: %d\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: %d\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n",
    b"nonsense %d\r\n\r\n",
)


def parsed(data: bytes) -> tuple[Request | None, int]:
    """What a parser takes first, and how much it leaves."""
    parser = Parser(MOST)
    parser.feed(data)
    try:
        return parser.take(), len(parser)
    except Refused:
        return None, len(data)


@given(st.sampled_from(HEADS), st.binary(max_size=MOST + 4), st.integers(-3, 3), st.integers(0, 200))
def test_what_is_read_at_once_is_what_a_parser_reads(head: bytes, body: bytes, more: int, cut: int) -> None:
    data = (head % max(0, len(body) + more) + body)[: cut or None]
    request, left = parsed(data)
    assert whole(data, MOST) == (request if left == 0 else None)


def test_nearly_all_requests_are_read_at_once() -> None:
    for head in HEADS[:4]:
        request = whole(head % 3 + b"abc", MOST)
        assert request is not None
        assert request.body == b"abc"


def test_two_requests_and_a_part_of_one_are_left_to_the_parser() -> None:
    one = HEADS[0] % 3 + b"abc"
    assert whole(one + one, MOST) is None
    assert whole(one[:-1], MOST) is None
    assert whole(one[:20], MOST) is None
