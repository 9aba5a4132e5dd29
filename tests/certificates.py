"""A certificate authority for tests that may not import the controller's: any names, any times, any mistake."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import time
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.contract.signing import PrivateKey

DAY = 86400.0
YEAR = 365 * DAY


class TestAuthority:
    """Its root is valid from 2000 to 2100, so that only the leaves' times matter."""

    __test__ = False

    def __init__(self) -> None:
        self._key = PrivateKey.generate()
        self._name = _name(f"Test {self._key.public.id[:8]}")
        builder = _builder(self._name, self._key.signer.public_key(), 946_684_800.0, 4_102_444_800.0)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signs=True), critical=True)
        self._root = builder.issuer_name(self._name).sign(self._key.signer, hashes.SHA256())
        self.pem = self._root.public_bytes(serialization.Encoding.PEM).decode()
        self.fingerprint = hashlib.sha256(self._root.public_bytes(serialization.Encoding.DER)).hexdigest()

    def server(
        self, folder: Path, names: Sequence[str] = ("127.0.0.1", "::1", "localhost"), start: float = 0, end: float = 0
    ) -> tuple[Path, Path]:
        """Files of a server's certificate and key; `start` and `end` in seconds since 1970."""
        key = PrivateKey.generate()
        alternative = x509.SubjectAlternativeName([_general_name(name) for name in names])
        signed = self._sign("server", key.signer.public_key(), start, end, alternative)
        files = folder / f"server-{key.public.id[:8]}.pem", folder / f"server-{key.public.id[:8]}.key"
        files[0].write_text(signed)
        files[1].write_text(key.pem())
        return files

    def device(self, request: str, name: str, start: float = 0, end: float = 0) -> str:
        """A device's certificate (PEM) for a certification request."""
        key = x509.load_pem_x509_csr(request.encode()).public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        return self._sign(name, key, start, end, None)

    def _sign(
        self,
        name: str,
        key: ec.EllipticCurvePublicKey,
        start: float,
        end: float,
        server: x509.SubjectAlternativeName | None,
    ) -> str:
        now = time.time()
        builder = _builder(_name(name), key, start or now - DAY, end or now + YEAR).issuer_name(self._name)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server is not None else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        ours = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.signer.public_key())
        builder = builder.add_extension(ours, critical=False)
        if server is not None:
            builder = builder.add_extension(server, critical=False)
        return builder.sign(self._key.signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def _builder(name: x509.Name, key: ec.EllipticCurvePublicKey, start: float, end: float) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(name).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(_time(start)).not_valid_after(_time(end))
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
        decipher_only=False,
    )  # fmt: skip


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _time(moment: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(moment), datetime.timezone.utc)
