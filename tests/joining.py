"""What a device sends to join, made by hand: for tests that need answers which a real agent would not let pass."""

from __future__ import annotations

from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from agent.contract.signing import PrivateKey


def request_of(key: PrivateKey) -> str:
    """A certification request (PEM) that proves the key; the controller takes no name from it."""
    signed = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key.signer, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def application(token: str, key: PrivateKey, name: str | None = None, **more: Any) -> dict[str, Any]:
    """Body of POST /api/v1/enroll."""
    facts = {"machine": "x86_64", "runtimes": ["ai-edge-litert"], "memory_mb": 4000}
    return {"token": token, "name": name, "csr": request_of(key), "facts": facts, **more}
