"""Signatures: P-256 keys and DSSE envelopes over exact bytes.

Source: Dead Simple Signing Envelope v1.0.2 (pre-authentication encoding), ECDSA P-256 with SHA-256 (FIPS 186-5).
The key id is the SHA-256 of the public key's DER (SubjectPublicKeyInfo).
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_ALGORITHM = ec.ECDSA(hashes.SHA256())


class SignatureError(ValueError):
    """An envelope that proves nothing: unknown key, changed bytes, wrong type, or not an envelope.

    `cause`: "key" for a key that is not trusted, "changed" for everything else.
    """

    def __init__(self, message: str, cause: str = "changed") -> None:
        super().__init__(message)
        self.cause = cause


class Signature(msgspec.Struct, frozen=True):
    keyid: str
    sig: str


class Envelope(msgspec.Struct, frozen=True, rename={"payload_type": "payloadType"}):
    """DSSE in its JSON form: `payload` and each `sig` are base64."""

    payload: str
    payload_type: str
    signatures: tuple[Signature, ...]


class PublicKey:
    """Verifies."""

    def __init__(self, key: ec.EllipticCurvePublicKey) -> None:
        self._key = key
        der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.id = hashlib.sha256(der).hexdigest()

    @classmethod
    def from_pem(cls, pem: str) -> PublicKey:
        try:
            key = serialization.load_pem_public_key(pem.encode())
        except (ValueError, TypeError) as error:
            raise SignatureError(f"not a public key in PEM: {error}") from error
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise SignatureError("only P-256 public keys are used here")
        return cls(key)

    def pem(self) -> str:
        return self._key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ).decode()

    def verifies(self, signature: bytes, message: bytes) -> bool:
        try:
            self._key.verify(signature, message, _ALGORITHM)
        except InvalidSignature:
            return False
        return True


class PrivateKey:
    """Signs. Kept in a PEM file that only its owner can read."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key())

    @property
    def signer(self) -> ec.EllipticCurvePrivateKey:
        """The key itself, for what has a format of its own: certificates and requests for them."""
        return self._key

    @classmethod
    def generate(cls) -> PrivateKey:
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def load_or_create(cls, path: Path) -> PrivateKey:
        """The key in `path`; made there (mode 0600) if the file does not exist."""
        if not path.exists():
            key = cls.generate()
            write_secret(path, key.pem())
            return key
        try:
            loaded = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (ValueError, TypeError) as error:
            raise SignatureError(f"{path} holds no private key: {error}") from error
        if not isinstance(loaded, ec.EllipticCurvePrivateKey) or not isinstance(loaded.curve, ec.SECP256R1):
            raise SignatureError(f"{path} holds a key of another kind; P-256 is needed")
        return cls(loaded)

    def pem(self) -> str:
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message, _ALGORITHM)


def seal(payload: bytes, payload_type: str, *keys: PrivateKey) -> bytes:
    """Sign `payload` with each key and return the envelope's bytes."""
    message = _pae(payload_type, payload)
    signatures = tuple(Signature(key.public.id, _b64(key.sign(message))) for key in keys)
    return msgspec.json.encode(Envelope(_b64(payload), payload_type, signatures))


def open_sealed(envelope: bytes, payload_type: str, keys: Iterable[PublicKey]) -> bytes:
    """Verify an envelope and return the exact payload bytes; raise SignatureError if no known key signed them."""
    known = {key.id: key for key in keys}
    try:
        parsed = msgspec.json.decode(envelope, type=Envelope)
        payload = _from_b64(parsed.payload)
        candidates = [(known.get(s.keyid), _from_b64(s.sig)) for s in parsed.signatures]
    except (msgspec.DecodeError, ValueError) as error:
        raise SignatureError(f"not a signed envelope: {error}") from error
    if parsed.payload_type != payload_type:
        raise SignatureError(f"signed as {parsed.payload_type!r}, expected {payload_type!r}")
    message = _pae(payload_type, payload)
    if any(key is not None and key.verifies(signature, message) for key, signature in candidates):
        return payload
    if any(key is not None for key, _ in candidates):
        raise SignatureError("the signature does not match: the content was changed")
    raise SignatureError("signed by a key that is not trusted here", "key")


def write_secret(path: Path, text: str) -> None:
    """Write a file of mode 0600 in one step: it never exists half written or readable by others."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: lengths make the boundary between type and payload unambiguous."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _from_b64(text: str) -> bytes:
    """Only the one text that stands for these bytes: the last letter has bits that mean nothing."""
    data = base64.b64decode(text, validate=True)
    if _b64(data) != text:
        raise ValueError("base64 with bits that mean nothing")
    return data
