"""The controller's side of joining, for tests that may not import the controller: the wire, and every way to fail."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from agent.contract.signing import PrivateKey
from tests.certificates import TestAuthority

FORBIDDEN = {"error": "the claim token is not valid", "who": "user", "hint": "make a new one"}


class Desk(ThreadingHTTPServer):
    """Answers as the controller does; with `authority` over TLS. The token is `good`.

    `approved` False makes devices wait; `revoked` refuses renewals; `loses` answers are lost after they were decided;
    `life` is how long a certificate lives, in seconds, and `begins` how long ago its life began.
    """

    daemon_threads = True

    def __init__(
        self, authority: TestAuthority | None = None, files: tuple[Path, Path] | None = None, host: str = "127.0.0.1"
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, 0), _Handler)
        self.authority = authority
        if files is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*files)
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{'https' if files else 'http'}://{shown}:{self.server_port}"
        self.keys = PrivateKey.generate(), PrivateKey.generate()
        self.asked: list[dict[str, Any]] = []
        self.renewals: list[float] = []
        self.answer: bytes | None = None
        self.approved, self.revoked, self.loses = True, False, 0
        self.life, self.begins = 3600.0, 1.0
        self.broker: dict[str, Any] = {"host": "127.0.0.1", "port": 9, "username": "u", "password": "p"}
        self.devices: dict[str, str] = {}
        """Name by key."""

    def __enter__(self) -> Desk:
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    @staticmethod
    def key_of(asked: dict[str, Any]) -> str:
        """The public key (PEM) in a request's certification request."""
        key = x509.load_pem_x509_csr(asked["csr"].encode()).public_key()
        return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()

    def handle_error(self, *_: Any) -> None:
        return  # A client that does not trust us hangs up in the middle: that is what some tests want.

    def enroll(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.asked.append(asked)
        if asked["token"] != "good":
            return 403, FORBIDDEN
        key, name = self.key_of(asked), asked["name"] or "device-1"
        if key not in self.devices:
            if name in self.devices.values() and not asked["derived"]:
                return 409, {"error": f"the name {name!r} is taken", "hint": "choose another with --name"}
            number = 1
            while (numbered := name if number == 1 else f"{name}-{number}") in self.devices.values():
                number += 1
            self.devices[key] = numbered
        return self._identity(self.devices[key], asked["csr"], 201)

    def certificate(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.renewals.append(time.monotonic())
        name = self.devices.get(self.key_of(asked))
        if name is None or self.revoked:
            return 403, {"error": "the device was revoked", "hint": "join with a new claim"}
        return self._identity(name, asked["csr"], 200)

    def _identity(self, name: str, csr: str, status: int) -> tuple[int, dict[str, Any]]:
        empty = {"broker": {"host": "", "port": 0}, "controller_key": "", "release_key": ""}
        identity: dict[str, Any] = {"agent": name, "device_token": "t", "state": "pending", **empty}
        if not self.approved:
            return 202, identity
        controller, release = (key.public.pem() for key in self.keys)
        identity |= {
            "state": "approved", "broker": self.broker, "controller_key": controller, "release_key": release,
        }  # fmt: skip
        if self.authority is not None:
            begin = time.time() - self.begins
            certificate = self.authority.device(csr, name, begin, begin + self.life)
            identity |= {"certificate": certificate, "not_before": begin, "not_after": begin + self.life}
        return status, identity


class _Handler(BaseHTTPRequestHandler):
    server: Desk
    timeout = 10

    def do_GET(self) -> None:
        if self.path == "/api/v1/ca" and self.server.authority is not None:
            self._send(200, json.dumps({"ca": self.server.authority.pem}).encode())
        else:
            self._send(404, b"{}")

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/api/v1/certificate" and self.headers["Authorization"] == "Bearer t":
            status, told = self.server.certificate(asked)
        elif self.path == "/api/v1/enroll":
            status, told = self.server.enroll(asked)
        else:
            status, told = 401, {"error": "who are you?"}
        if self.server.loses:
            self.server.loses -= 1
            self.close_connection = True
            return
        body = self.server.answer if self.server.answer and status < 400 else json.dumps(told).encode()
        self._send(status, body)

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return
