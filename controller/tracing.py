"""W3C Trace Context (https://www.w3.org/TR/trace-context/), the header `traceparent`. Pure."""

from __future__ import annotations

import re

_HEADER = re.compile("([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SPAN = re.compile("[0-9a-f]{16}")


def parse(header: str | None) -> str | None:
    """The trace id that a caller sent; None where the header is missing or not valid. Later versions of the standard
    may append fields, version 00 has none."""
    found = _HEADER.fullmatch(header) if header else None
    if found is None:
        return None
    version, trace, parent, _, more = found.groups()
    valid = version != "ff" and not (version == "00" and more) and int(trace, 16) and int(parent, 16)
    return trace if valid else None


def new_id(drawn: int) -> str:
    """A trace id of 128 random bits."""
    return f"{drawn or 1:032x}"


def header(trace_id: str, request: str) -> str:
    """What is handed on: a request is one span of the trace, and the end of its id is the span's. Flag 01: its steps
    are recorded."""
    span = request.partition(".")[0][-16:]
    return f"00-{trace_id}-{span if _SPAN.fullmatch(span) else trace_id[:16]}-01"
