"""A real mosquitto as `lepta up --lan` starts it, and everybody who may or may not come in."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from controller import broker
from controller.broker import Admission, ClientRight, Spawned
from controller.broker import config as broker_config
from controller.identity.authority import CA_CERTIFICATE, CA_KEY, Authority
from controller.settings import Settings
from tests.benchmarks.devices.peers import Login

SECRET = "correct horse"
DAY_S = 86400.0


class Lan:
    """The broker runs on an event loop of its own; everything here is called from outside of it."""

    def __init__(self, folder: Path, *, host: str = "127.0.0.1", agents_port: int = 0, clients_port: int = 0) -> None:
        self.folder = folder
        self.authority = Authority.load_or_create(folder / "ca", time.time())
        self.stranger = Authority.load_or_create(folder / "another-ca", time.time())
        self.server = self.authority.server(("127.0.0.1", "localhost"), time.time(), 365 * DAY_S)
        settings = Settings(
            data=folder, lan=True, broker="mosquitto", host=host, agents_port=agents_port, clients_port=clients_port
        )
        made = broker.create(settings, SECRET, self.server, folder / "ca" / CA_CERTIFICATE)
        assert isinstance(made, Spawned)
        self.broker = made
        self.clients: dict[str, ClientRight] = {}
        self.revoked: list[str] = []
        self.serials: dict[str, str] = {}
        self._loop = asyncio.new_event_loop()
        self._passwords: dict[str, str] = {}

    @contextlib.contextmanager
    def running(self) -> Iterator[Lan]:
        thread = threading.Thread(target=self._loop.run_forever)
        thread.start()
        try:
            self.admit()
            self.run(self.broker.start())
            yield self
        finally:
            self.run(self.broker.stop())
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def admit(self) -> None:
        """Tell the broker who may come in now. Before it starts, or from outside of its loop."""
        crl = self.authority.revocations(self.revoked, time.time())
        admission = Admission(tuple(self.clients.values()), crl)
        if self.broker.alive:
            self.run(asyncio.to_thread(self.broker.admit, admission))
        else:
            self.broker.admit(admission)

    def add_client(self, name: str, *granted: str) -> None:
        password = self._passwords[name] = secrets.token_urlsafe(24)
        hashed = broker_config.client_password(password, secrets.token_bytes(12))
        self.clients[name] = ClientRight(name, hashed, granted)

    # -- logins

    def controller(self, client_id: str) -> Login:
        """With every right, as the controller has it."""
        return Login(self.broker.port, client_id, self.broker.username, SECRET)

    def device(self, name: str, client_id: str | None = None) -> Login:
        """The same certificate each time."""
        tls = self.certificate(name, self.authority)
        return Login(self.broker.agents_port, name if client_id is None else client_id, tls=tls)

    def client(self, name: str, client_id: str | None = None) -> Login:
        return Login(self.broker.clients_port, client_id or name, name, self._passwords[name], self.trust())

    def trust(self) -> ssl.SSLContext:
        """TLS without a certificate of one's own."""
        return ssl.create_default_context(cafile=str(self.folder / "ca" / CA_CERTIFICATE))

    def certificate(self, name: str, authority: Authority) -> ssl.SSLContext:
        """TLS with a certificate for `name`, whatever that is; the same one at the next call."""
        path = authority.folder / f"{name.encode().hex() or 'empty'}.pem"
        if not path.exists():
            pem, serial = _issue(authority, name)
            path.write_text(pem)
            self.serials[name] = serial
        context = self.trust()
        context.load_cert_chain(path)
        return context


def _issue(authority: Authority, name: str) -> tuple[str, str]:
    """Key and certificate; signed past the authority's rules where those would not sign such a name."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    root = x509.load_pem_x509_certificate(authority.pem.encode())
    signer = serialization.load_pem_private_key((authority.folder / CA_KEY).read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    common = [x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else []
    builder = x509.CertificateBuilder().subject_name(x509.Name(common)).issuer_name(root.subject)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(root.not_valid_before_utc).not_valid_after(root.not_valid_after_utc)
    signed = builder.sign(signer, hashes.SHA256())
    return private + signed.public_bytes(serialization.Encoding.PEM).decode(), f"{signed.serial_number:x}"
