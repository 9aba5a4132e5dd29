"""The controller's own certificate authority: one root key, certificates for the server and for devices, a CRL.

Source: RFC 5280 (profile), RFC 2986 (certification requests). Names are chosen here and never taken from a request.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.contract import topics
from agent.contract.signing import PrivateKey, PublicKey, SignatureError, write_secret
from controller.errors import Internal, UserError

CA_KEY, CA_CERTIFICATE = "ca.key", "ca.pem"
SERVER_KEY, SERVER_CERTIFICATE = "server.key", "server.pem"
_ROOT_DAYS = 20 * 365
_CRL_DAYS = 10 * 365
# Clocks of a fleet differ: what was signed a moment ago must not lie in a device's future.
_BEFORE = datetime.timedelta(days=1)
_HASH = hashes.SHA256()


@dataclass(frozen=True)
class Issued:
    """A certificate for a device. Times in seconds since 1970; `serial` in hex."""

    pem: str
    serial: str
    not_before: float
    not_after: float


@dataclass(frozen=True)
class ServerFiles:
    certificate: Path
    key: Path


class Authority:
    """Raises Internal where its files cannot be used. `now` in seconds since 1970 is an argument everywhere."""

    def __init__(self, folder: Path, key: PrivateKey, certificate: x509.Certificate) -> None:
        self.folder = folder
        self._key = key
        self._certificate = certificate
        self.pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
        self.fingerprint = hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()
        """SHA-256 of the certificate (DER), in hex: what a device is given to know us by."""

    @classmethod
    def load_or_create(cls, folder: Path, now: float) -> Authority:
        """The CA kept in `folder` (mode 0700), made at the first call."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            key = PrivateKey.load_or_create(folder / CA_KEY)
            path = folder / CA_CERTIFICATE
            if not path.exists():
                write_secret(path, _pem(_root(key, now)))
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
        except (OSError, ValueError, SignatureError) as error:
            raise Internal(
                f"the CA in {folder} cannot be used: {error}", "restore it from a backup; devices trust this one only"
            ) from error
        if _point(certificate.public_key()) != _point(key.signer.public_key()):
            raise Internal(f"{CA_KEY} and {CA_CERTIFICATE} in {folder} are of two CAs", "restore both from one backup")
        return cls(folder, key, certificate)

    def server(self, names: Sequence[str], now: float, lifetime_s: float) -> ServerFiles:
        """The server's key and certificate for these names and addresses; signed anew when a third is left or they
        changed. The key stays."""
        files = ServerFiles(self.folder / SERVER_CERTIFICATE, self.folder / SERVER_KEY)
        try:
            key = PrivateKey.load_or_create(files.key)
            if not self._fits(files.certificate, key, names, now, lifetime_s):
                alternative = x509.SubjectAlternativeName([_general_name(name) for name in names])
                signed = self._sign("lepta-controller", key.signer.public_key(), now, lifetime_s, alternative)
                write_secret(files.certificate, _pem(signed))
        except (OSError, ValueError, SignatureError) as error:
            raise Internal(f"the server's certificate cannot be made: {error}", f"look at {self.folder}") from error
        return files

    def sign_device(self, request: str, name: str, now: float, lifetime_s: float) -> Issued:
        """A client certificate for the key of a certification request (PEM); raises as `public_key_of` does."""
        key = _key_of(request)
        # A name of another form could be the controller's own client id at the broker.
        topics.check_name(name, "device name")
        signed = self._sign(name, key, now, lifetime_s, None)
        return Issued(
            pem=_pem(signed),
            serial=f"{signed.serial_number:x}",
            not_before=signed.not_valid_before_utc.timestamp(),
            not_after=signed.not_valid_after_utc.timestamp(),
        )

    def revocations(self, serials: Iterable[str], now: float) -> str:
        """The CRL (PEM): certificates that are not to be let in although they have not expired."""
        at = _time(now)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._certificate.subject)
        builder = builder.last_update(at - _BEFORE).next_update(at + datetime.timedelta(days=_CRL_DAYS))
        for serial in serials:
            revoked = x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(at).build()
            builder = builder.add_revoked_certificate(revoked)
        crl = builder.sign(self._key.signer, _HASH)
        return crl.public_bytes(serialization.Encoding.PEM).decode()

    def _fits(self, path: Path, key: PrivateKey, names: Sequence[str], now: float, lifetime_s: float) -> bool:
        if not path.exists():
            return False
        kept = x509.load_pem_x509_certificate(path.read_bytes())
        alternative = kept.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return (
            set(alternative) == {_general_name(name) for name in names}
            and kept.not_valid_after_utc.timestamp() - now > lifetime_s / 3
            and kept.issuer == self._certificate.subject
            and _point(kept.public_key()) == _point(key.signer.public_key())
        )

    def _sign(
        self,
        name: str,
        key: ec.EllipticCurvePublicKey,
        now: float,
        lifetime_s: float,
        server: x509.SubjectAlternativeName | None,
    ) -> x509.Certificate:
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server is not None else ExtendedKeyUsageOID.CLIENT_AUTH
        ours = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = _builder(name, key, now, lifetime_s).issuer_name(self._certificate.subject)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ours), critical=False
        )
        if server is not None:
            builder = builder.add_extension(server, critical=False)
        return builder.sign(self._key.signer, _HASH)


def public_key_of(request: str) -> PublicKey:
    """The key of a certification request (PEM), whose signature proves that the sender holds the private one. Raises
    UserError for a request that is none, that its key did not sign, or whose key is not P-256."""
    return PublicKey(_key_of(request))


def _key_of(request: str) -> ec.EllipticCurvePublicKey:
    try:
        parsed = x509.load_pem_x509_csr(request.encode())
        key = parsed.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise UserError("the certification request has a key of another kind", "only P-256 keys are used here")
        if not parsed.is_signature_valid:
            raise UserError("the certification request was not signed by its key", "update the agent")
    except (ValueError, InvalidSignature) as error:
        raise UserError(f"not a certification request: {error}", "update the agent") from error
    return key


def _root(key: PrivateKey, now: float) -> x509.Certificate:
    # The name tells two controllers apart where a device's user looks at certificates.
    subject = f"Lepta {key.public.id[:12]}"
    builder = _builder(subject, key.signer.public_key(), now, _ROOT_DAYS * 86400.0).issuer_name(_name(subject))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return builder.add_extension(_usage(signs=True), critical=True).sign(key.signer, _HASH)


def _builder(name: str, key: ec.EllipticCurvePublicKey, now: float, lifetime_s: float) -> x509.CertificateBuilder:
    at = _time(now)
    builder = x509.CertificateBuilder().subject_name(_name(name)).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(at - _BEFORE).not_valid_after(at + datetime.timedelta(seconds=lifetime_s))
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _time(now: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(now, datetime.UTC)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _point(key: object) -> bytes:
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
