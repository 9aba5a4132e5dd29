"""The client of the REST API: whole files or none, errors in words, tensors bit for bit."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from controller.client.locate import Place, locate
from controller.client.oip import AnswerError, decode_answer
from controller.client.rest import ApiError, Client, ClientLimits, Unreachable
from tests.rest_double import RestDouble, served


@pytest.fixture
def double() -> RestDouble:
    return RestDouble()


@pytest.fixture
def client(double: RestDouble, tmp_path: Path) -> Iterator[Client]:
    with served(double, tmp_path) as environment, Client(locate(environment)) as client:
        yield client


def test_a_file_comes_back_with_the_same_bytes(client: Client, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(bytes(range(256)) * 1000)
    stored = client.put_file(tmp_path / "in")
    assert stored.size == 256_000
    client.get_file(stored.digest, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()


def test_a_damaged_download_leaves_no_file(client: Client, double: RestDouble, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"some bytes")
    stored = client.put_file(tmp_path / "in")
    double.broken_download = True
    with pytest.raises(ApiError, match="other bytes"):
        client.get_file(stored.digest, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["api-token", "in"]


def test_answers_carry_who_gave_them_and_every_number(client: Client) -> None:
    answer = client.infer("digits", {"image": np.zeros((3, 8, 8, 1), np.float32)})
    assert answer.outputs["scores"].shape == (3, 10)
    assert answer.outputs["scores"].dtype == np.float32
    assert (answer.id, answer.version, answer.device) == ("req-1", 1, "pi-1")


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"outputs": [{"name": "a", "datatype": "FP99", "shape": [1], "data": [1]}]}']
)
def test_bytes_that_are_no_answer_are_refused(body: bytes) -> None:
    with pytest.raises(AnswerError):
        decode_answer(body, None)


def test_nan_survives_the_way_through_json() -> None:
    body = b'{"outputs": [{"name": "a", "datatype": "FP32", "shape": [2], "data": [null, 1.5]}]}'
    values = decode_answer(body, None).outputs["a"]
    assert np.isnan(values[0])
    assert values[1] == 1.5


class _Foreign(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def log_message(self, *_: object) -> None:
        """Quiet."""


def test_a_server_that_is_no_controller_is_recognized(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x")
    server = HTTPServer(("127.0.0.1", 0), _Foreign)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        place = Place(f"http://127.0.0.1:{server.server_port}", tmp_path / "token")
        with Client(place) as client, pytest.raises(ApiError, match="cannot be understood"):
            client.info()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_silence_ends_after_the_limit(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x")
    silent = HTTPServer(("127.0.0.1", 0), _Foreign)
    try:
        place = Place(f"http://127.0.0.1:{silent.server_port}", tmp_path / "token")
        with (
            Client(place, ClientLimits(answer_s=0.2)) as client,
            pytest.raises(Unreachable, match="did not answer in time"),
        ):
            client.info()
    finally:
        silent.server_close()


def test_a_proxy_from_the_environment_is_not_asked_for_this_machine(
    client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with Client(client.place) as behind:
        assert behind.models()[0].name == "digits"
