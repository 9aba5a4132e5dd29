"""PURE: HTTP/1.1 requests out of a stream of bytes, as strictly as a server may read them (RFC 9112).

Only what inference requests need: bodies have a Content-Length, and whatever two programs could read in two ways is
refused: a second length, Transfer-Encoding, folded or malformed header lines. After a refusal nothing more is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

MAX_HEAD = 16 * 1024
_END = b"\r\n\r\n"
_LINE = re.compile(r"([A-Z]{1,16}) (/[\x21-\x7e]*) HTTP/1\.([01])")
_HEADER = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\x20-\x7e\x80-\xff\t]*)")
_DIGITS = re.compile(r"[0-9]{1,15}")
_SHORT_HEAD = 2048
"""Longer ones are read each time."""


class Refused(Exception):
    """A request that is not read; its connection is closed after the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Request(NamedTuple):
    method: str
    path: str
    """Without the query."""
    headers: Mapping[str, str]
    """Names in lower case. As latin-1, in which every byte is a character."""
    body: bytes
    keep: bool
    """May another request follow on the connection?"""


class _Head(NamedTuple):
    method: str
    path: str
    headers: Mapping[str, str]
    keep: bool
    length: int


class Parser:
    """`feed` what was read, then `take` requests until there is none."""

    def __init__(self, most_body: int) -> None:
        self._most_body = most_body
        self._bytes = bytearray()
        self._head: _Head | None = None
        self._looked = 0
        """So many bytes hold no end of a head."""

    def __len__(self) -> int:
        """Bytes that wait."""
        return len(self._bytes)

    @property
    def begun(self) -> bool:
        """Has a part of a request come?"""
        return self._head is not None or bool(self._bytes)

    @property
    def missing(self) -> int:
        """Bytes until the request is whole, as far as that is known; 1 while its head is not."""
        return 1 if self._head is None else self._head.length - len(self._bytes)

    @property
    def expects(self) -> bool:
        """Does the caller wait for a word before it sends the body?"""
        head = self._head
        return head is not None and "expect" in head.headers and len(self._bytes) < head.length

    def feed(self, data: bytes) -> None:
        self._bytes += data

    def take(self) -> Request | None:
        """The next request once it is whole. Raises Refused."""
        if self._head is None and not self._find_head():
            return None
        head = self._head
        assert head is not None
        if len(self._bytes) < head.length:
            return None
        with memoryview(self._bytes) as view:
            body = bytes(view[: head.length])
        del self._bytes[: head.length]
        self._head = None
        return Request(head.method, head.path, head.headers, body, head.keep)

    def _find_head(self) -> bool:
        end = self._bytes.find(_END, max(0, self._looked - len(_END) + 1), MAX_HEAD)
        if end < 0:
            self._looked = len(self._bytes)
            if self._looked >= MAX_HEAD:
                raise Refused(431, f"the head of a request has at most {MAX_HEAD:,} bytes")
            return False
        head = (_read_again if end <= _SHORT_HEAD else _read)(bytes(self._bytes[:end]))
        if head.length > self._most_body:
            raise Refused(413, f"a request has at most {self._most_body:,} bytes")
        self._head = head
        del self._bytes[: end + len(_END)]
        self._looked = 0
        return True


def _read(head: bytes) -> _Head:
    first, *lines = head.decode("latin-1").split("\r\n")
    found = _LINE.fullmatch(first)
    if found is None:
        raise Refused(400, "not a request of HTTP/1.1: `METHOD /path HTTP/1.1` is expected")
    method, target, minor = found.groups()
    headers: dict[str, str] = {}
    for line in lines:
        parts = _HEADER.fullmatch(line)
        if parts is None:
            raise Refused(400, f"not a header line: {line.encode('latin-1')[:60]!r}")
        name, value = parts[1].lower(), parts[2].rstrip(" \t")
        # Joined, two lengths are no number and two hosts no host: both are refused.
        headers[name] = headers[name] + ", " + value if name in headers else value
    new = minor == "1"
    if new and "host" not in headers:
        raise Refused(400, "HTTP/1.1 wants a Host")
    wish = headers.get("connection", "").lower()
    keep = "close" not in wish if new else "keep-alive" in wish
    return _Head(method, target.partition("?")[0], headers, keep, _length(headers))


_read_again = lru_cache(256)(_read)
"""A caller's requests have the same head, byte by byte, one after the other."""


def whole(data: bytes, most_body: int) -> Request | None:
    """The request that this is, whole and nothing else, as nearly all come; None where a `Parser` has to say."""
    end = data.find(_END, 0, _SHORT_HEAD)
    if end < 0:
        return None
    try:
        head = _read_again(data[:end])
    except Refused:
        return None
    begin = end + len(_END)
    if len(data) - begin != head.length or head.length > most_body:
        return None
    return Request(head.method, head.path, head.headers, data[begin:], head.keep)


def _length(headers: Mapping[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise Refused(501, "Transfer-Encoding is not read here: send the body whole, with Content-Length")
    if headers.get("expect", "100-continue").lower() != "100-continue":
        raise Refused(417, "only `Expect: 100-continue` can be met")
    told = headers.get("content-length", "0")
    if _DIGITS.fullmatch(told) is None:
        raise Refused(400, "Content-Length is no number")
    return int(told)
