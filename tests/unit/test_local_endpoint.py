"""The local endpoint's pure parts: requests out of bytes, paths, addresses, and when requests go together."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import batching
from agent.contract.http1 import MAX_HEAD, Parser, Refused, Request
from agent.contract.messages import ModelState
from agent.local import place, routes
from agent.local.standings import standings

HOST = b"Host: localhost\r\n"
MOST = 1000


def post(body: bytes, more: bytes = b"") -> bytes:
    return b"POST /v2/models/m/infer?x=1 HTTP/1.1\r\n%sContent-Length: %d\r\n%s\r\n%s" % (HOST, len(body), more, body)


def taken(parser: Parser) -> list[Request]:
    found = []
    while (request := parser.take()) is not None:
        found.append(request)
    return found


@given(bodies=st.lists(st.binary(max_size=80), min_size=1, max_size=4), data=st.data())
def test_requests_are_the_same_however_their_bytes_are_split(bodies: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(map(post, bodies))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    parser, found = Parser(MOST), []
    for first, last in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        parser.feed(stream[first:last])
        found += taken(parser)
    assert [request.body for request in found] == bodies
    assert {(r.method, r.path, r.keep) for r in found} == {("POST", "/v2/models/m/infer", True)}
    assert not parser.begun


@given(garbage=st.binary(max_size=300))
def test_garbage_is_refused_or_waits_and_never_breaks_the_parser(garbage: bytes) -> None:
    parser = Parser(MOST)
    parser.feed(garbage)
    with contextlib.suppress(Refused):
        taken(parser)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST /v2 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
        (b"POST /v2 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
        (b"POST /v2 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", 400),
        (b"POST /v2 HTTP/1.1\r\nHost: h\r\nContent-Length: +3\r\n\r\n", 400),
        (b"POST /v2 HTTP/1.1\r\nHost: h\r\nContent-Length: 3,3\r\n\r\n", 400),
        (b"POST /v2 HTTP/1.1\r\nHost: h\r\nContent-Length : 3\r\n\r\n", 400),
        (b"POST /v2 HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n", 400),
        (b"POST /v2 HTTP/1.1\r\nHost: h\r\nX: a\nContent-Length: 3\r\n\r\n", 400),
        (b"POST /v2 HTTP/1.1\r\nContent-Length: 3\r\n\r\n", 400),
        (b"POST /v2 HTTP/2\r\nHost: h\r\n\r\n", 400),
        (b"POST http://h/v2 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"POST /v2 HTTP/1.1\r\nHost: h\r\nExpect: tea\r\n\r\n", 417),
        (b"POST /v2 HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n", 413),
        (b"GET /" + b"a" * MAX_HEAD, 431),
    ],
)
def test_what_two_programs_could_read_in_two_ways_or_is_too_long_is_refused(head: bytes, status: int) -> None:
    parser = Parser(MOST)
    parser.feed(head)
    with pytest.raises(Refused) as refused:
        parser.take()
    assert refused.value.status == status


def test_a_caller_that_waits_for_a_word_before_its_body_is_seen() -> None:
    parser = Parser(MOST)
    parser.feed(post(b"body", b"Expect: 100-continue\r\n")[:-4])
    assert parser.take() is None
    before = parser.expects
    parser.feed(b"body")
    assert (before, parser.expects) == (True, False)
    assert taken(parser)[0].body == b"body"


@pytest.mark.parametrize(
    ("head", "keep"),
    [
        (b"GET /v2 HTTP/1.1\r\nHost: h\r\n\r\n", True),
        (b"GET /v2 HTTP/1.1\r\nHost: h\r\nConnection: Close\r\n\r\n", False),
        (b"GET /v2 HTTP/1.0\r\n\r\n", False),
        (b"GET /v2 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
    ],
)
def test_a_connection_stays_open_as_its_caller_wishes(head: bytes, keep: bool) -> None:
    parser = Parser(MOST)
    parser.feed(head)
    assert taken(parser)[0].keep is keep


def test_a_path_names_a_model_and_perhaps_a_version() -> None:
    assert routes.find("/v2/models/m/infer") == ("infer", "m", "")
    assert routes.find("/v2/models/m/versions/3/infer") == ("infer", "m", "3")
    assert routes.find("/v2/models/m") == ("model", "m", "")
    assert routes.find("/v2/models/m/versions/3/ready") == ("model ready", "m", "3")
    assert routes.find("/v2/health/ready") == ("ready", "", "")
    assert routes.find("/v2/models/m/versions/3/stats") == ("stats", "m", "3")
    assert routes.find("/v2/models/stats") == ("all stats", "", "")
    assert routes.find("/v2/repository/models/m/unload") == ("unload", "m", "")
    for nothing in (
        "/v2/repository/models/m",
        "/",
        "/v2/",
        "/v2/models//infer",
        "/v2/models/m/other",
        "/v2/models/m/versions//infer",
    ):
        assert routes.find(nothing) is None


def test_versions_stand_as_devices_report_them_and_answer_only_where_a_worker_lives() -> None:
    def state(version: int, state: Any, reason: str = "") -> ModelState:
        digest = "1" * 64
        return ModelState(
            model="m", version=version, artifact=digest, manifest=digest, profile="p", state=state, reason=reason
        )

    states = [state(1, "serving"), state(2, "probing"), state(3, "refused", "too slow")]
    told = [(s.version, s.state, s.reason) for s in standings(states, {"m"})]
    assert told == [("1", "READY", ""), ("2", "LOADING", "probing"), ("3", "UNAVAILABLE", "refused: too slow")]
    assert [s.state for s in standings([state(1, "serving"), state(2, "watching")], ())] == ["LOADING", "LOADING"]


def test_an_address_on_loopback_is_taken_and_another_only_where_that_is_wished() -> None:
    assert place.parse("127.0.0.1:8001", beyond_loopback=False) == ("127.0.0.1", 8001, False)
    assert place.parse("localhost:0", beyond_loopback=False) == ("127.0.0.1", 0, False)
    assert place.parse("[::1]:80", beyond_loopback=False) == ("::1", 80, False)
    assert place.parse("0.0.0.0:80", beyond_loopback=True) == ("0.0.0.0", 80, True)
    with pytest.raises(place.PlaceError, match="neither TLS nor authentication: use 127"):
        place.parse("0.0.0.0:80", beyond_loopback=False)
    for wrong in ("8001", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999", "a@127.0.0.1:1", "127.0.0.1:1/x", ""):
        with pytest.raises(place.PlaceError, match="HOST:PORT is expected"):
            place.parse(wrong, beyond_loopback=False)


@pytest.mark.parametrize(
    ("headers", "taken"),
    [
        ({"host": "127.0.0.1:8001"}, True),
        ({"host": "localhost"}, True),
        ({"host": "[::1]:8001"}, True),
        ({"host": "evil.example:8001"}, False),
        ({"host": "localhost, evil.example"}, False),
        ({"host": "[::"}, False),
        ({"host": "localhost", "origin": "http://localhost:3000"}, True),
        ({"host": "localhost", "origin": "https://evil.example"}, False),
        ({"host": "localhost", "origin": "null"}, False),
    ],
)
def test_a_page_of_another_site_in_a_browser_here_may_not_ask(headers: dict[str, str], taken: bool) -> None:
    here = place.parse("127.0.0.1:8001", beyond_loopback=False)
    assert (place.foreign(here, headers) == "") is taken


def test_small_models_take_several_requests_at_once_and_large_ones_do_not() -> None:
    assert batching.depth(0.0, 1.0, 2, 16) == 2
    assert batching.depth(0.2, 1.0, 2, 16) == 10
    assert batching.depth(0.01, 1.0, 2, 16) == 16
    assert batching.depth(20.0, 1.0, 2, 16) == 2
    assert batching.depth(0.2, 0.0, 2, 16) == 2


@given(took=st.floats(0, 10), wait=st.floats(0, 10))
def test_no_request_waits_for_others_beyond_the_limit(took: float, wait: float) -> None:
    count = batching.at_once(took, wait, 16)
    assert 1 <= count <= 16
    assert count == 1 or count * took <= wait
