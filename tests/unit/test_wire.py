"""The short way to a broker on this machine: taken where it can be, and never in the way."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.contract import wire
from agent.start import dial


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a short path."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def test_a_unix_socket_is_used_where_somebody_listens(folder: Path) -> None:
    path = str(folder / "broker.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        near = wire.near(path, 1.0)
        assert near is not None
        with near, listener.accept()[0] as other:
            near.sendall(b"x")
            assert other.recv(1) == b"x"
    assert wire.near(path, 1.0) is None, "it is there still, and nobody listens"


def test_no_path_a_file_and_one_that_is_too_long_are_no_sockets(folder: Path) -> None:
    (folder / "file").touch()
    for path in ("", str(folder / "nobody"), str(folder / "file"), str(folder / ("x" * 200))):
        assert wire.near(path, 1.0) is None


def test_an_agent_that_cannot_open_the_socket_dials_by_tcp(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, dial(str(folder / "x"), server.getsockname(), 1.0) as sock:
        assert sock.getpeername() == server.getsockname()
