"""The optimizer's process without any step: requests it cannot use, cancelled ones, and its end."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.contract.children import command, environment
from optimizer.settings import LIMITS

Server = subprocess.Popen[bytes]


@pytest.fixture
def server() -> Iterator[Server]:
    process = subprocess.Popen(
        command("optimizer.__main__"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(process)
        stack.callback(process.kill)
        yield process


def say(server: Server, line: bytes) -> None:
    assert server.stdin
    server.stdin.write(line + b"\n")
    server.stdin.flush()


def hear(server: Server) -> dict[str, Any]:
    assert server.stdout
    answer = json.loads(server.stdout.readline())
    assert isinstance(answer, dict)
    return answer


def test_a_request_that_cannot_be_used_is_answered_and_the_next_one_too(server: Server) -> None:
    for line, part in [
        (b"garbage", "cannot be read: not JSON"),
        (b"[1, 2]", "not a JSON object"),
        (b'{"id": "1", "do": "fly"}', "request 'fly' is not known"),
        (b'{"id": "1", "do": "optimize"}', "lacks a field"),
        (b'{"id": "1", "do": "optimize", "run": "/none.json", "out": "/tmp"}', "/none.json cannot be read"),
        (b'{"id": "1", "do": "example", "name": "cats", "out": "/tmp"}', "no example is called 'cats'"),
    ]:
        say(server, line)
        answer = hear(server)
        assert (answer["event"], answer["who"]) == ("failed", "user")
        assert part in answer["error"]


def test_it_ends_by_itself_when_its_parent_hangs_up(server: Server) -> None:
    assert server.stdin
    server.stdin.close()
    assert server.wait(10) == 0


def test_it_ends_when_a_line_never_does(server: Server) -> None:
    assert server.stdin
    with contextlib.suppress(BrokenPipeError):
        server.stdin.write(b"x" * (LIMITS.request_bytes + 100_000))
        server.stdin.flush()
    assert server.wait(10) == 0


def test_a_waiting_request_can_be_cancelled_before_its_turn(server: Server, tmp_path: Path) -> None:
    example = b'{"id": "%d", "do": "example", "name": "digits", "out": "' + str(tmp_path).encode() + b'"}'
    say(server, example % 1)
    assert hear(server)["id"] == "1"
    say(server, example % 2 + b'\n{"id": "2", "do": "cancel"}\n{"id": "1", "do": "cancel"}')
    failed: list[tuple[str, str]] = []
    while len(failed) < 2:
        answer = hear(server)
        if answer["event"] == "failed":
            failed.append((answer["id"], answer["error"]))
    assert sorted(failed) == [("1", "cancelled"), ("2", "cancelled")]
